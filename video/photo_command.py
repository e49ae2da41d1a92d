"""clip4str photo: words of whole photos."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clip4str.core.console import Parser, fail, one_line
from clip4str.core.errors import ImageError, UsageError
from clip4str.core.output_files import check_output
from clip4str.runtime import load_image
from clip4str.runtime.read_command import add_recognizer_options, expand, load_recognizer

from .options import add_detector_options, detector_of, need_opencv
from .vote import LEAST

if TYPE_CHECKING:
    from .photo import PhotoWord

LONG_SIDE = 1280
_EPILOG = """\
examples:
  clip4str photo street.jpg                       words, confidence, and where they are
  clip4str photo photos/ --json > words.jsonl     one JSON object a photo
  clip4str photo street.jpg --overlay read.png    the photo with what was read
Words are found by PP-OCRv6's detector (pip install 'clip4str[video]'). A crop of one
word needs none: clip4str read.
"""


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="clip4str photo",
        description="Find and read the words of whole photos.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("paths", nargs="+", metavar="PATH", help="photo, folder, pattern, or - for standard input")
    add("--json", action="store_true", help="one JSON object a photo: path, width, height, words")
    add("--overlay", type=Path, metavar="FILE", help="the photo with its words drawn, PNG or JPEG; of a single photo")
    add(
        "--least",
        type=float,
        default=LEAST,
        metavar="P",
        help="leave out words of less confidence (default: %(default)s)",
    )
    add_detector_options(parser, LONG_SIDE)
    add_recognizer_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    need_opencv()
    from .photo import read_photo

    if not 0 <= args.least <= 1:
        raise UsageError(f"--least is 0 to 1, not {args.least}")
    check_output(args.overlay, (".png", ".jpg", ".jpeg"))
    photos = list(expand(args.paths))
    if args.overlay is not None and len(photos) != 1:
        raise UsageError(f"--overlay draws one photo, but {len(photos)} are named")
    if args.overlay is not None and args.overlay.resolve() == Path(photos[0][0]).resolve():
        raise UsageError(f"{args.overlay}: is the photo itself; name another file for --overlay")
    recognizer = load_recognizer(args)
    detector = detector_of(args, recognizer.backend.threads or 1)
    failed = 0
    for name, source in photos:
        try:
            pixels = np.asarray(load_image(source))
            words = read_photo(recognizer, detector, pixels, args.least)
        except ImageError as error:
            failed += 1
            fail("photo", error)
            if args.json:
                print(json.dumps({"path": name, "error": str(error)}), flush=True)
            continue
        _print(name, pixels, words, args.json, len(photos) > 1)
        if args.overlay is not None:
            from .outputs.drawing import save_photo

            save_photo(args.overlay, pixels, words)
    return 2 if failed else 0


def _print(name: str, pixels: np.ndarray, words: Sequence[PhotoWord], as_json: bool, named: bool) -> None:
    if as_json:
        found = [
            {"text": w.word.text, "confidence": w.word.confidence, "quad": np.round(w.quad.astype(float), 1).tolist(),
             **({"label": w.label} if w.label else {})} for w in words
        ]  # fmt: skip
        height, width = pixels.shape[:2]
        fields = {"path": name, "width": width, "height": height, "words": found}
        print(json.dumps(fields, ensure_ascii=False, allow_nan=False), flush=True)
        return
    if named:
        print(f"{one_line(name)}:")
    if not words:
        print(f"{one_line(name)}: no words found", file=sys.stderr)
    widest = min(40, max((len(w.word.text) for w in words), default=0))
    for w in words:
        corners = " ".join(f"{x:.0f},{y:.0f}" for x, y in w.quad)
        print(f"{one_line(w.word.text):<{widest}}  {w.word.confidence:6.1%}  {corners}", flush=True)
