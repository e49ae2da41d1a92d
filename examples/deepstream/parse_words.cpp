// nvinfer's parser of the single file's outputs: a label for each object whose word is settled and sure enough.
//   g++ -O2 -fPIC -shared -I/opt/nvidia/deepstream/deepstream/sources/includes -I. parse_words.cpp -o libclip4str_words.so
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "charset.h"  // written by prepare.py, beside words.onnx
#include "nvdsinfer_custom_impl.h"

namespace {

// The values of an output for one object, or null if there is none of that name, type and size.
template <class T>
const T* output(const std::vector<NvDsInferLayerInfo>& layers, const char* name, NvDsInferDataType type, unsigned least) {
    for (const auto& layer : layers) {
        if (std::strcmp(layer.layerName, name) != 0) continue;
        if (layer.dataType == type && layer.inferDims.numElements >= least) return static_cast<const T*>(layer.buffer);
    }
    return nullptr;
}

}  // namespace

extern "C" bool NvDsInferParseClip4strWord(std::vector<NvDsInferLayerInfo> const& layers, NvDsInferNetworkInfo const&,
                                           float threshold, std::vector<NvDsInferAttribute>& attributes,
                                           std::string& description) {
    const auto* ids = output<int32_t>(layers, "ids", INT32, clip4str::STEPS);
    const auto* length = output<int32_t>(layers, "length", INT32, 1);
    const auto* settled = output<int32_t>(layers, "settled", INT32, 1);
    const auto* confidence = output<float>(layers, "confidence", FLOAT, 1);
    if (!ids || !length || !settled || !confidence) {
        std::fprintf(stderr, "clip4str: the engine lacks an output: is its file of prepare.py, with this charset.h?\n");
        return false;
    }
    // Not settled: more passes would perhaps read another word. The next frame of the object gets another chance.
    if (!*settled || *length < 1 || *length > clip4str::STEPS || !(*confidence >= threshold)) return true;
    std::string word;
    for (int32_t i = 0; i < *length; ++i) {
        if (ids[i] < 1 || ids[i] > clip4str::CHARACTERS) {
            std::fprintf(stderr, "clip4str: character %d is not in charset.h, which is another network's\n", ids[i]);
            return false;
        }
        word += clip4str::CHARSET[ids[i] - 1];
    }
    NvDsInferAttribute attribute{};
    attribute.attributeIndex = 0;
    attribute.attributeValue = 0;
    attribute.attributeConfidence = *confidence;
    attribute.attributeLabel = strdup(word.c_str());  // nvinfer frees it
    attributes.push_back(attribute);
    description = word;
    return true;
}

CHECK_CUSTOM_CLASSIFIER_PARSE_FUNC_PROTOTYPE(NvDsInferParseClip4strWord);
