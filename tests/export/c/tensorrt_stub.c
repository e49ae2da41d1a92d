/* Stands in for libnvinfer, libnvinfer_plugin and libnvonnxparser, so that TensorRT's real Python bindings import on a
 * machine without TensorRT: what they export, each giving nothing. Their classes, enums and signatures can be looked at;
 * none can be made. */
#define GIVES_NOTHING(name) \
    void *name(void) { return 0; }

GIVES_NOTHING(createInferBuilder_INTERNAL)
GIVES_NOTHING(createInferRefitter_INTERNAL)
GIVES_NOTHING(createInferRuntime_INTERNAL)
GIVES_NOTHING(createNvOnnxParser_INTERNAL)
GIVES_NOTHING(createNvOnnxParserRefitter_INTERNAL)
GIVES_NOTHING(getBuilderPluginRegistry)
GIVES_NOTHING(getNvOnnxParserVersion)
GIVES_NOTHING(getPluginRegistry)
GIVES_NOTHING(initLibNvInferPlugins)
