"""A bundle as one ONNX file: pixels in, words out, in standard operators. See write.write_single_file."""
