"""NVIDIA's Triton Inference Server: model repositories over a bundle. Not the compiler of the same name."""
