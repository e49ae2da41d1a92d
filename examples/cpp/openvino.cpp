// Pictures to words with OpenVINO: read_word word.onnx PICTURE.ppm...
// word.onnx is written by: clip4str export --resize --output word.onnx
#include <openvino/openvino.hpp>

#include "words.h"

int main(int count, char** arguments) {
    return read_pictures(count, arguments, [](const std::string& file) -> Read {
        ov::Core core;
        const auto model = core.read_model(file);
        // OpenVINO keeps what an ONNX file says of itself under "framework"
        const auto charset = model->get_rt_info<std::string>("framework", "charset");
        // float32: on processors with bfloat16 OpenVINO would take that by itself, and read other words
        auto compiled = core.compile_model(model, "CPU", ov::hint::inference_precision(ov::element::f32));
        if (compiled.input().get_element_type() != ov::element::u8) {
            throw std::runtime_error("it does not take pictures of any size: export it with --resize");
        }
        auto request = compiled.create_infer_request();
        return [=](Picture& picture) mutable -> Word {
            const ov::Shape shape{1, picture.height, picture.width, 3};
            request.set_input_tensor(ov::Tensor(ov::element::u8, shape, picture.pixels.data()));
            request.infer();
            const auto ids = request.get_tensor("ids");
            const int32_t length = *request.get_tensor("length").data<int32_t>();
            return {text_of(ids.data<int32_t>(), length, charset), *request.get_tensor("confidence").data<float>(),
                    *static_cast<const char*>(request.get_tensor("settled").data()) != 0};
        };
    });
}
