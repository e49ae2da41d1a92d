"""clip4str read: words in images."""

from __future__ import annotations

import argparse
import glob
import json
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from clip4str.core.console import Parser, fail, one_line
from clip4str.core.errors import ImageError, UsageError
from clip4str.core.packaged import PACKAGED
from clip4str.core.reading import Decoding

from .images import ImageLike, load_image
from .recognizer import Recognizer, Word, default_bundle

IMAGE_SUFFIXES = {
    ".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".jp2", ".avif"
}  # fmt: skip
_EPILOG = """\
examples:
  clip4str read photo.jpg                          one image
  clip4str read crops/ 'more/*.png' --json         a folder (and below), a pattern; one JSON object a line
  cat photo.jpg | clip4str read -                  an image on standard input
  find . -name '*.jpg' | clip4str read -           or a list of paths
An image is a cropped word. Images that cannot be read are reported on stderr, the rest are read, and the exit
code is 2.
"""


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="clip4str read",
        description="Read the word in every image.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="image, folder, pattern, or - for standard input")
    parser.add_argument("--json", action="store_true", help="one JSON object a line: path, text, confidence, ...")
    parser.add_argument("--quiet", action="store_true", help="no progress bar and no summary on stderr")
    add_recognizer_options(parser)
    return parser


def add_recognizer_options(parser: argparse.ArgumentParser) -> None:
    """The options that choose and set up a Recognizer, shared by every command that reads words."""
    group = parser.add_argument_group("recogniser")
    group.add_argument(
        "--bundle",
        metavar="DIR",
        help="bundle folder, or a checkpoint file for torch (default: $CLIP4STR_BUNDLE, else the newest in ./bundles, "
        "else the packaged network)",
    )
    group.add_argument("--backend", default="auto", help="auto, tensorrt, torch or onnxruntime (default: auto)")
    group.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all this process may use)")
    group.add_argument(
        "--providers",
        metavar="P,P",
        help="ONNX Runtime execution providers, e.g. CUDA,CPU (default: CUDA where installed, else CPU)",
    )
    group.add_argument("--device", help="cuda or cuda:N; of torch also cpu (default: the GPU where there is one)")
    group.add_argument(
        "--dtype", help="of torch: float16, bfloat16 or float32 (default: float16 on a GPU, float32 on a CPU)"
    )
    group.add_argument(
        "--batch-size", type=int, metavar="N", help="images per batch (default: 16; 64 for torch on a GPU)"
    )
    group.add_argument(
        "--decode", choices=("ar", "nar"), default="ar", help="left to right, or all at once (default: ar)"
    )
    group.add_argument("--refine", type=int, default=1, metavar="N", help="rounds of refinement (default: 1)")
    group.add_argument(
        "--branch",
        choices=("cross", "visual"),
        default="cross",
        help="visual: no text tower, faster (default: cross)",
    )
    group.add_argument(
        "--charset-test", metavar="CHARS", help="what the text tower gets to read (default: the bundle's)"
    )
    group.add_argument("--no-verify", action="store_true", help="skip the sha256 check of the bundle's files")


def announced_bundle() -> Path:
    """default_bundle's, in one line on stderr where nobody chose it."""
    folder = default_bundle()
    if folder == PACKAGED:
        print(f"no bundle under ./bundles: taking the packaged network, {folder.name}", file=sys.stderr)
    return folder


def load_recognizer(args: argparse.Namespace) -> Recognizer:
    """The Recognizer that add_recognizer_options' arguments describe. Raises Clip4StrError."""
    return Recognizer.load(
        args.bundle or announced_bundle(),
        args.backend,
        threads=args.threads,
        providers=args.providers.split(",") if args.providers else None,
        decoding=Decoding(args.decode, args.refine, args.branch),
        charset_test=args.charset_test,
        batch_size=args.batch_size,
        verify=not args.no_verify,
        device=args.device,
        dtype=args.dtype,
    )


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    sources = list(expand(args.paths))
    if not sources:
        raise UsageError("no images found in what was named")
    recognizer = load_recognizer(args)
    width = min(60, max(len(name) for name, _ in sources))
    failed, milliseconds = 0, []
    silent = args.quiet or len(sources) <= recognizer.batch_size
    bar = tqdm(total=len(sources), unit="img", disable=silent or None)  # None: only where stderr is a terminal
    for start in range(0, len(sources), recognizer.batch_size):
        began = time.perf_counter()
        names, pixels = [], []
        for name, source in sources[start : start + recognizer.batch_size]:
            try:
                pixels.append(recognizer.prepare([source]))  # at once: full-size images are not kept
                names.append(name)
            except ImageError as error:
                failed += 1
                with tqdm.external_write_mode():
                    fail("read", error)
                    if args.json:
                        print(json.dumps({"path": name, "error": str(error)}), flush=True)
        words = recognizer.read_pixels(np.concatenate(pixels)) if pixels else []
        if words:
            milliseconds += [(time.perf_counter() - began) * 1000 / len(words)] * len(words)
        with tqdm.external_write_mode():
            for name, word in zip(names, words):
                print(_line(name, word, args.json, width), flush=True)
        bar.update(min(recognizer.batch_size, len(sources) - start))
    bar.close()
    if milliseconds and not args.quiet:
        print(
            f"{len(milliseconds)} words, median {statistics.median(milliseconds):.1f} ms a word "
            f"(batches of up to {recognizer.batch_size}, bundle {recognizer.manifest.name})",
            file=sys.stderr,
        )
    return 2 if failed else 0


def expand(paths: Sequence[str]) -> Iterator[tuple[str, ImageLike]]:
    """(name, source) of everything the arguments name: files as they are, folders searched for images, patterns
    expanded, "-" an image or a list of paths on standard input. Raises UsageError where nothing is meant."""
    for path in paths:
        if not path:
            raise UsageError("an empty path names nothing; for this folder: .")
        if path == "-":
            yield from _standard_input()
        elif Path(path).is_dir():
            yield from _folder(Path(path))
        elif not Path(path).exists() and glob.has_magic(path):
            matches = sorted(glob.glob(path, recursive=True))  # noqa: PTH207  (keeps the pattern's own spelling)
            if not matches:
                raise UsageError(f"{path}: matches nothing")
            yield from ((m, m) for m in matches if not Path(m).is_dir())
        else:
            yield path, path


def _folder(folder: Path) -> Iterator[tuple[str, ImageLike]]:
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise UsageError(f"{folder}: cannot be read ({error.strerror})") from None
    for entry in entries:
        if entry.is_dir() and not entry.is_symlink():
            yield from _folder(entry)
        elif entry.suffix.lower() in IMAGE_SUFFIXES:
            yield str(entry), str(entry)


def _standard_input() -> Iterator[tuple[str, ImageLike]]:
    data = sys.stdin.buffer.read()
    try:
        load_image(data)
    except ImageError:
        lines = data.decode("utf-8", "replace").splitlines() if b"\0" not in data else []
        if any(Path(line).exists() for line in lines):
            yield from ((line, line) for line in lines if line.strip())
            return
    yield "-", data


def _line(name: str, word: Word, as_json: bool, width: int) -> str:
    if as_json:
        fields = {"path": name, "text": word.text, "confidence": word.confidence}
        return json.dumps({**fields, "char_confidences": word.char_confidences}, ensure_ascii=False)
    return f"{one_line(name):<{width}}  {word.confidence:6.1%}  {one_line(word.text)}"
