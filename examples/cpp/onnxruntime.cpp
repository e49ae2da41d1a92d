// Pictures to words with ONNX Runtime: read_word word.onnx PICTURE.ppm...
// word.onnx is written by: clip4str export --resize --output word.onnx
#include <onnxruntime_cxx_api.h>

#include <array>
#include <memory>

#include "words.h"

int main(int count, char** arguments) {
    static Ort::Env environment(ORT_LOGGING_LEVEL_ERROR, "read_word");
    return read_pictures(count, arguments, [](const std::string& file) -> Read {
        const std::basic_string<ORTCHAR_T> path(file.begin(), file.end());  // wide on Windows
        auto session = std::make_shared<Ort::Session>(environment, path.c_str(), Ort::SessionOptions());
        Ort::AllocatorWithDefaultOptions allocator;
        const auto charset = session->GetModelMetadata().LookupCustomMetadataMapAllocated("charset", allocator);
        if (!charset) throw std::runtime_error("no file that clip4str export has written");
        const auto input = session->GetInputTypeInfo(0);
        if (input.GetTensorTypeAndShapeInfo().GetElementType() != ONNX_TENSOR_ELEMENT_DATA_TYPE_UINT8) {
            throw std::runtime_error("it does not take pictures of any size: export it with --resize");
        }
        return [session, charset = std::string(charset.get())](Picture& picture) -> Word {
            const std::array<int64_t, 4> shape{1, static_cast<int64_t>(picture.height),
                                               static_cast<int64_t>(picture.width), 3};
            const auto memory = Ort::MemoryInfo::CreateCpu(OrtArenaAllocator, OrtMemTypeDefault);
            const auto pixels = Ort::Value::CreateTensor<uint8_t>(memory, picture.pixels.data(), picture.pixels.size(),
                                                                  shape.data(), shape.size());
            const char* inputs[] = {"pixels"};
            const char* outputs[] = {"ids", "length", "confidence", "settled"};
            const auto found = session->Run(Ort::RunOptions(), inputs, &pixels, 1, outputs, 4);
            const int32_t length = *found[1].GetTensorData<int32_t>();
            return {text_of(found[0].GetTensorData<int32_t>(), length, charset), *found[2].GetTensorData<float>(),
                    *found[3].GetTensorData<bool>()};
        };
    });
}
