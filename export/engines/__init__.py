"""Stage ONNX files -> TensorRT engines, on the machine that will run them: numpy, TensorRT and our runtime, no torch.

    options        what a build may be asked for
    library        which TensorRT and which GPU are here
    build          the four engines of a bundle, and the manifest's account of them
    listening      what TensorRT says while it builds: errors, progress, layers; stopping it
    timing_cache   what it measured, kept for the next build
    build_log      which layers were fused, and in which types they compute
    trtexec        the same engines by NVIDIA's command

One way for TensorRT 10.3 (JetPack 6) to 11 and TensorRT-RTX: networks are strongly typed, so the precision is that of
the ONNX files, and only the number of images varies.
"""

from .build import build_engines, engine_key
from .library import check_precision, choose_target, find_library, why_no_engines
from .options import HARDWARE, TARGETS, EngineOptions
from .trtexec import trtexec_commands

__all__ = [
    "HARDWARE",
    "TARGETS",
    "EngineOptions",
    "build_engines",
    "check_precision",
    "choose_target",
    "engine_key",
    "find_library",
    "trtexec_commands",
    "why_no_engines",
]
