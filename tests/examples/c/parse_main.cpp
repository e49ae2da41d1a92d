// Does as nvinfer does: loads the parser, gives it each object's outputs, prints the label. Objects come on stdin, a line
// each: length settled confidence, then the ids.   parse_main LIBRARY STEPS THRESHOLD
#include <dlfcn.h>

#include <cstdio>
#include <cstdlib>
#include <iostream>

#include "nvdsinfer_custom_impl.h"

int main(int, char** arguments) {
    void* library = dlopen(arguments[1], RTLD_NOW);
    if (!library) return std::fprintf(stderr, "%s\n", dlerror()), 3;
    auto* parse = reinterpret_cast<NvDsInferClassiferParseCustomFunc>(dlsym(library, "NvDsInferParseClip4strWord"));
    const unsigned steps = std::strtoul(arguments[2], nullptr, 10);
    int length, settled;
    float confidence;
    while (std::cin >> length >> settled >> confidence) {
        std::vector<int> ids(steps);
        for (int& id : ids) std::cin >> id;
        std::vector<NvDsInferLayerInfo> layers(4);
        const char* names[] = {"ids", "confidence", "length", "settled"};
        void* buffers[] = {ids.data(), &confidence, &length, &settled};
        for (int i = 0; i < 4; ++i) {
            layers[i].dataType = i == 1 ? FLOAT : INT32;
            layers[i].inferDims = {1, {i ? 1 : steps}, i ? 1 : steps};
            layers[i].layerName = names[i];
            layers[i].buffer = buffers[i];
        }
        std::vector<NvDsInferAttribute> attributes;
        std::string description;
        const bool done = parse(layers, {128, 32, 3}, std::strtof(arguments[3], nullptr), attributes, description);
        std::printf("%d", done);
        for (auto& attribute : attributes) {
            std::printf("\t%s\t%.6f\t%s", attribute.attributeLabel, attribute.attributeConfidence, description.c_str());
            std::free(attribute.attributeLabel);
        }
        std::printf("\n");
    }
    return 0;
}
