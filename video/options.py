"""Options that both commands of this room have."""

from __future__ import annotations

import argparse
import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path

from clip4str.core.errors import BackendError, UsageError

from .detect import Detector, engine_beside, open_detector
from .detect.ppocr import LONG_SIDE


def need_opencv() -> None:
    """Raises BackendError where it is not installed."""
    if importlib.util.find_spec("cv2") is None:
        raise BackendError("videos and photos need OpenCV: pip install 'clip4str[video]'")


def listening_address(text: str, option: str) -> tuple[str, int]:
    """[HOST:]PORT, HOST in brackets where it is an IPv6 address. Without one: this machine alone. Port 0: any that is
    free. Raises UsageError, naming the option."""
    host, _, port = text.rpartition(":") if ":" in text else ("127.0.0.1", ":", text)
    bracketed = host.startswith("[") and host.endswith("]")
    good = port.isascii() and port.isdecimal() and len(port) < 6 and int(port) < 65536
    if not good or not host or re.search(r"[\s/@\[\]]", host.strip("[]")) or (":" in host and not bracketed):
        raise UsageError(f"{option} is a port or HOST:PORT, as in 8080, 0.0.0.0:8080 or [::1]:8080, not {text!r}")
    return host.strip("[]"), int(port)


def add_detector_options(parser: argparse.ArgumentParser, long_side: int = LONG_SIDE) -> None:
    group = parser.add_argument_group("detector")
    group.add_argument(
        "--long-side", type=int, default=long_side, metavar="N",
        help="pixels that the longer side is shrunk to before words are searched: more finds smaller words, in a time "
        "that grows with its square (default: %(default)s)",
    )  # fmt: skip
    group.add_argument("--lines", action="store_true", help="do not cut lines of text into words")
    group.add_argument("--detector-model", type=Path, metavar="FILE", help="another ONNX detector of PP-OCR's kind")


def detector_of(args: argparse.Namespace, threads: int) -> Detector:
    """By OpenVINO, in the recogniser's precision, where that reads. Raises UsageError, BackendError."""
    if args.detector_model is not None and not args.detector_model.is_file():
        raise UsageError(f"{args.detector_model}: no such file")
    return open_detector(
        "auto", long_side=args.long_side, words=not args.lines, model=args.detector_model, threads=threads,
        **engine_beside(args.backend, args.dtype),
    )  # fmt: skip


def region_of(text: str | None, name: str = "--region") -> tuple[int, int, int, int] | None:
    """x,y,w,h in pixels. name: of the option. Raises UsageError."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+),(\d+),(\d+),(\d+)", text.replace(" ", ""))
    numbers: Sequence[int] = [int(n) for n in match.groups()] if match else ()
    if not numbers or not (numbers[2] and numbers[3]) or max(numbers) > 100_000:
        raise UsageError(f"{name} is x,y,width,height in pixels, as in 100,0,640,360, not {text!r}")
    return numbers[0], numbers[1], numbers[2], numbers[3]
