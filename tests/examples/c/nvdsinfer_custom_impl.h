// A stand-in, written from the documented interface: the few names of DeepStream's header that parse_words.cpp uses.
#pragma once
#include <string>
#include <vector>

typedef enum { FLOAT = 0, HALF = 1, INT8 = 2, INT32 = 3 } NvDsInferDataType;
typedef struct {
    unsigned int numDims;
    unsigned int d[8];
    unsigned int numElements;
} NvDsInferDims;
typedef struct {
    NvDsInferDataType dataType;
    union {
        NvDsInferDims inferDims;
        NvDsInferDims dims;
    };
    int bindingIndex;
    const char* layerName;
    void* buffer;
    int isInput;
} NvDsInferLayerInfo;
typedef struct {
    unsigned int width, height, channels;
} NvDsInferNetworkInfo;
typedef struct {
    unsigned int attributeIndex;
    unsigned int attributeValue;
    float attributeConfidence;
    char* attributeLabel;
} NvDsInferAttribute;

typedef bool (*NvDsInferClassiferParseCustomFunc)(std::vector<NvDsInferLayerInfo> const&, NvDsInferNetworkInfo const&,
                                                  float, std::vector<NvDsInferAttribute>&, std::string&);
#define CHECK_CUSTOM_CLASSIFIER_PARSE_FUNC_PROTOTYPE(function) \
    static_assert(NvDsInferClassiferParseCustomFunc(&function) != nullptr, "not as nvinfer calls it")
