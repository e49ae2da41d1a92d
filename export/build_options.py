"""The options of `clip4str build`."""

from __future__ import annotations

import argparse

from clip4str.core.console import Parser, image_size
from clip4str.core.normalization import NORMALIZATION
from clip4str.export.engines import HARDWARE

PROGRAM = "clip4str build"
TARGETS = ("auto", "onnx", "tensorrt", "tensorrt-rtx")
_DESCRIPTION = """\
Turn a CLIP4STR checkpoint into a bundle: four ONNX stage graphs, a manifest and, where TensorRT is at hand, engines.
Ends by comparing the bundle's words with the float32 network's on sample images, and refuses to write one that reads
differently. What is there already and would come out the same is left alone.
"""
_EPILOG = """\
examples:
  clip4str build                                   the bundled network, float32, for a CPU
  clip4str build my.ckpt --fp16                    half precision; engines too, where TensorRT and a GPU are at hand
  clip4str build my.ckpt --int8                    8 bits, for this CPU
  clip4str build my.ckpt --fp8                     8 bits in floating point, for Ada, Hopper, Blackwell and Thor
  clip4str build my.ckpt --int8 --target tensorrt --no-engines      for a board, on any machine; carry the bundle over,
  clip4str build bundles/my-int8                   and on the board: engines of a bundle that is there (needs no torch)
"""


def build_parser() -> Parser:
    parser = Parser(
        prog=PROGRAM,
        description=_DESCRIPTION,
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("checkpoint", nargs="?", metavar="CHECKPOINT",
        help=".ckpt, .pt, .safetensors (default: the bundled network), "
        "or a bundle's folder, to add engines")  # fmt: skip
    precision = parser.add_mutually_exclusive_group()
    for name, text in (
        ("fp32", "float32 weights: exact, and fast on a CPU (default)"),
        ("fp16", "half precision: for GPUs"),
        ("int8", "8 bits in the towers, calibrated, behind an accuracy gate"),
        ("fp8", "likewise in floating point (E4M3), for GPUs of compute capability 8.9 and newer"),
    ):
        precision.add_argument(f"--{name}", dest="precision", action="store_const", const=name, help=text)
    add("--output", metavar="DIR", help="bundle folder; default: bundles/CHECKPOINT-PRECISION")
    add("--max-batch", metavar="N", type=int, help="most images per call (default 32)")
    add("--torch", action="store_true", help="also write the weights as tensors, for the torch backend")
    add("--single-file", metavar="FILE", help="also as one ONNX file, pixels in, words out; see clip4str export")
    add("--force", action="store_true", help="replace an existing bundle, build again what is up to date")
    add("--verbose", action="store_true", help="say more; with engines, all that TensorRT says")
    _add_network_options(parser.add_argument_group("network, where the checkpoint does not tell"))
    _add_gate_options(parser.add_argument_group("checks"))
    _add_engine_options(parser.add_argument_group("engines"))
    return parser


def _add_network_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--normalization", choices=sorted(NORMALIZATION),
        help="half: mean = std = 0.5, as published accuracy was measured (default); clip: CLIP's own")  # fmt: skip
    add("--charset", metavar="FILE",
        help="characters the network was trained on: a file (one line, a character on each, or a published "
        "configuration in YAML), or the string itself")  # fmt: skip
    add("--charset-test", metavar="FILE", help="characters that captions are reduced to, likewise")
    add("--image-size", metavar="HxW", type=image_size, help="input size, such as 32x128")


def _add_gate_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--sample-images", metavar="DIR", help="word crops to compare words on; default: the bundled ones")
    add("--min-agreement", metavar="SHARE", type=float,
        help="share of words that must agree with the float32 network (default 0.99; "
        "int8 and fp8 have the next two)")  # fmt: skip
    add("--calib-data", metavar="DIR",
        help="of int8 and fp8: word crops to calibrate and check on, a folder or a labelled LMDB; default: the bundled "
        "samples and rendered words")  # fmt: skip
    add("--max-accuracy-drop", metavar="POINTS", type=float,
        help="of int8 and fp8: word accuracy that may be lost; layers return to higher precision until it holds "
        "(default 0.3)")  # fmt: skip


def _add_engine_options(group: argparse._ArgumentGroup) -> None:
    add = group.add_argument
    add("--target", choices=TARGETS, default="auto",
        help="what will run the bundle; auto (default): TensorRT where it and a GPU are at hand, for fp16, int8, "
        "fp8 and bundles that are there, else onnx")  # fmt: skip
    add("--no-engines", action="store_true", help="stop before the engines, to build them where they will run")
    add("--min-batch", metavar="N", type=int, help="fewest images per call (default 1)")
    add("--opt-batch", metavar="N", type=int, help="images per call that engines are tuned for (default 8)")
    add("--workspace", metavar="MIB", type=int, help="scratch memory TensorRT may use (default: all there is)")
    add("--timing-cache", metavar="FILE", help="what TensorRT measured, kept for the next build (default: in ~/.cache)")
    add("--compute-capability", metavar="CC,CC", help="of tensorrt-rtx: GPUs to build for, such as 8.6,8.9")
    add("--hardware-compatibility", metavar="LEVEL", choices=HARDWARE,
        help=f"other GPUs that may run the engines: {', '.join(HARDWARE)} (the default: none)")  # fmt: skip
    add("--version-compatible", action="store_true", help="engines that other TensorRT versions may load")
    add("--trtexec", action="store_true", help="print the trtexec commands that build the same engines, and stop")
