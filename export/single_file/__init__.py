"""A bundle as one ONNX file: pixels in, words out, in standard operators. See export_command.export_bundle."""

PASSES_SHOWN = "3,2"  # an example
