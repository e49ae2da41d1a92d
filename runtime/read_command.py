"""clip4str read: words in images."""

from __future__ import annotations

import argparse
import glob
import io
import json
import os
import statistics
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tqdm import tqdm

from clip4str.core.batches import batches
from clip4str.core.charset_file import read_charset
from clip4str.core.console import Parser, fail, image_size
from clip4str.core.errors import Clip4StrError, ImageError, UsageError, first_line, one_line
from clip4str.core.packaged import PACKAGED
from clip4str.core.reading import Decoding

from .backends.memory_limits import ladder
from .default_bundle import default_bundle
from .images import IMAGE_SUFFIXES, PICTURE_BYTES, ImageLike, load_image
from .recognizer import Recognizer, Word

STDIN = "<stdin>"  # the name of what came through standard input
_EPILOG = """\
examples:
  clip4str read photo.jpg                          one image
  clip4str read crops/ 'more/*.png' --json         a folder (and below), a pattern; one JSON object a line
  cat photo.jpg | clip4str read -                  an image on standard input
  find . -name '*.jpg' -print0 | clip4str read -0 -   or a list of paths; without -0, one a line
An image is a cropped word. Images that cannot be read are reported on stderr, the rest are read, and the exit
code is 2. Of a folder hidden files are left out.
"""


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="clip4str read",
        description="Read the word in every image.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("paths", nargs="+", metavar="PATH", help="image, folder, pattern, or - for standard input")
    parser.add_argument(
        "--json", action="store_true", help="one JSON object an image, in order: path, text, confidence, ... or error"
    )
    parser.add_argument("--null", action="store_true", help="or -0: paths on standard input end with a zero byte")
    parser.add_argument("--quiet", action="store_true", help="no progress bar, no hints and no summary on stderr")
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
    group.add_argument(
        "--backend", default="auto", help="auto, tensorrt, torch, onnxruntime or openvino (default: auto)"
    )
    group.add_argument("--threads", type=int, metavar="N", help="CPU threads (default: all this process may use)")
    group.add_argument(
        "--providers",
        metavar="P,P",
        help="ONNX Runtime execution providers, e.g. CUDA,CPU (default: CUDA where installed, else CPU)",
    )
    group.add_argument("--device", help="cuda or cuda:N; of torch also cpu (default: the GPU where there is one)")
    group.add_argument(
        "--dtype",
        help="of torch: float16, bfloat16 or float32 (default: float16 on a GPU, float32 on a CPU); of openvino: "
        "float32 (default) or bfloat16",
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
        "--charset-test",
        metavar="FILE",
        help="what the text tower gets to read: characters, or a file of them (default: the bundle's)",
    )
    group.add_argument(
        "--charset", metavar="FILE", help="of a checkpoint that does not tell it: its characters, or a file of them"
    )
    group.add_argument(
        "--image-size", metavar="HxW", type=image_size, help="of a checkpoint that does not tell it, such as 32x128"
    )
    group.add_argument("--no-verify", action="store_true", help="skip the sha256 check of the bundle's files")
    group.add_argument(
        "--warm-up",
        action="store_true",
        help="compile kernels, capture CUDA graphs, take memory before the first image, not at it",
    )


def announced_bundle() -> Path:
    """default_bundle's, in one line on stderr where nobody chose it."""
    folder = default_bundle()
    if folder == PACKAGED:
        print(f"no bundle under ./bundles: taking the packaged network, {folder.name}", file=sys.stderr)
    return folder


def load_recognizer(args: argparse.Namespace, images: int | None = None) -> Recognizer:
    """The Recognizer that add_recognizer_options' arguments describe. images: how many there are to read, None if that
    is not known: --warm-up is then for batches of any size. Raises Clip4StrError."""
    recognizer = Recognizer.load(
        args.bundle or announced_bundle(),
        args.backend,
        threads=args.threads,
        providers=args.providers.split(",") if args.providers else None,
        decoding=Decoding(args.decode, args.refine, args.branch),
        charset_test=None if args.charset_test is None else read_charset(args.charset_test).characters,
        charset=None if args.charset is None else read_charset(args.charset).characters,
        image_size=args.image_size,
        batch_size=args.batch_size,
        verify=not args.no_verify,
        device=args.device,
        dtype=args.dtype,
    )
    if args.charset_test and (note := recognizer.driver.charset.note):
        print(note, file=sys.stderr)
    if args.warm_up:
        most = recognizer.batch_size
        sizes = ladder(most) if images is None else [n for n in (most * (images >= most), images % most) if n]
        began = time.perf_counter()
        recognizer.warm_up(sizes)
        if not getattr(args, "quiet", False):
            named = ", ".join(map(str, sizes))
            print(f"warmed up for batches of {named} in {time.perf_counter() - began:.1f} s", file=sys.stderr)
    return recognizer


def main(argv: Sequence[str] | None = None) -> int:
    words = list(sys.argv[1:] if argv is None else argv)
    # Given to argparse, an option that looks like a number would make it take every negative number for an option.
    args = build_parser().parse_args(["--null" if word == "-0" else word for word in words])
    sources = list(expand(args.paths, args.null))
    if not sources:
        raise UsageError("no images found in what was named")
    absent = [_absent(source) for _, source in sources]
    if all(absent):  # said without a network
        for (name, _), error in zip(sources, absent):
            if error is not None:
                _tell(name, error, args, 0)
        return 2
    recognizer = load_recognizer(args, len(sources))
    width = min(60, max(len(name) for name, _ in sources))
    failed, milliseconds = 0, []
    silent = args.quiet or len(sources) <= recognizer.batch_size
    with tqdm(total=len(sources), unit="img", disable=silent or None) as bar:  # None: only where stderr is a terminal
        began = time.perf_counter()
        many = list(batches(sources, recognizer.batch_size))
        for batch, found in zip(many, recognizer.read_batches([source for _, source in batch] for batch in many)):
            read = sum(isinstance(word, Word) for word in found)
            milliseconds.append([(time.perf_counter() - began) * 1000 / max(1, read)] * read)
            began = time.perf_counter()
            with tqdm.external_write_mode():
                for (name, _), word in zip(batch, found):
                    failed += not isinstance(word, Word)
                    _tell(name, word, args, width)
            bar.update(len(batch))
    if not args.quiet and any(milliseconds):
        print(_summary(milliseconds, recognizer), file=sys.stderr)
    return 2 if failed else 0


def _absent(source: ImageLike) -> ImageError | None:
    """What reading it would raise, if it is the path of nothing."""
    if isinstance(source, str) and not os.path.lexists(source):
        try:
            load_image(source)
        except ImageError as error:
            return error
    return None


def _tell(name: str, word: Word | Clip4StrError, args: argparse.Namespace, width: int) -> None:
    """One image's line on stdout, and what there is to say of it on stderr."""
    if isinstance(word, Clip4StrError):
        fail("read", str(word) if isinstance(word, ImageError) else f"{name}: {word}")
    elif word.hint and not args.quiet:
        print(f"clip4str read: hint: {one_line(name)}: {word.hint}", file=sys.stderr)
    if args.json:
        print(_json(name, word), flush=True)
    elif isinstance(word, Word):
        print(f"{one_line(name):<{width}}  {word.confidence:6.1%}  {one_line(word.text)}", flush=True)


def _json(name: str, word: Word | Clip4StrError) -> str:
    fields: dict[str, Any] = {"path": name}
    if isinstance(word, Word):
        fields |= {"text": word.text, "confidence": word.confidence, "char_confidences": word.char_confidences}
        fields |= {"hint": word.hint} if word.hint else {}
    else:
        fields["error"] = str(word)
    return json.dumps(fields, ensure_ascii=False, allow_nan=False)


def _summary(milliseconds: Sequence[Sequence[float]], recognizer: Recognizer) -> str:
    """milliseconds: of every word, by batches. The first batch warms up: it counts only where there is no other."""
    first, *later = [batch for batch in milliseconds if batch]
    count = len(first) + sum(map(len, later))
    median = statistics.median([value for batch in later for value in batch] or first)
    words = f"1 word, {median:.1f} ms" if count == 1 else f"{count} words, median {median:.1f} ms a word"
    cold = "" if later else ", warming up included"
    return f"{words}{cold} (batches of up to {recognizer.batch_size}, bundle {recognizer.manifest.name})"


def expand(paths: Sequence[str], null: bool = False) -> Iterator[tuple[str, ImageLike]]:
    """(name, source) of everything the arguments name: files as they are, folders searched for images, patterns
    expanded, "-" an image or a list of paths on standard input, by lines or (null) zero bytes. Raises UsageError where
    nothing is meant."""
    for path in paths:
        if not path:
            raise UsageError("an empty path names nothing; for this folder: .")
        if path == "-":
            yield from _standard_input(null)
        elif Path(path).is_dir():
            yield from _some(_folder(Path(path)), f"{path}: no images found in it or below")
        elif not Path(path).exists() and glob.has_magic(path):
            matches = sorted(glob.glob(path, recursive=True))  # noqa: PTH207  (keeps the pattern's own spelling)
            if not matches:
                raise UsageError(f"{path}: matches nothing")
            yield from _some(((m, m) for m in matches if not Path(m).is_dir()), f"{path}: matches folders alone")
        else:
            yield path, path


def _some(found: Iterator[tuple[str, ImageLike]], otherwise: str) -> Iterator[tuple[str, ImageLike]]:
    """All of them; raises UsageError where there is none, as nobody would miss them among those of other paths."""
    first = next(found, None)
    if first is None:
        raise UsageError(otherwise)
    yield first
    yield from found


def _folder(folder: Path) -> Iterator[tuple[str, ImageLike]]:
    """The images in it and below, hidden ones not, and nothing that is no regular file."""
    try:
        entries = sorted(folder.iterdir())
    except OSError as error:
        raise UsageError(f"{folder}: cannot be read ({error.strerror})") from None
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir() and not entry.is_symlink():
            yield from _folder(entry)
        elif entry.suffix.lower() in IMAGE_SUFFIXES and entry.is_file():
            yield str(entry), str(entry)


class _StandardInput(io.BytesIO):
    """What came, under the name that errors give it."""

    name = STDIN


def _standard_input(null: bool) -> Iterator[tuple[str, ImageLike]]:
    data = sys.stdin.buffer.read(PICTURE_BYTES) if sys.stdin else b""
    if not data:
        raise UsageError(f"{STDIN}: nothing came; give it an image or a list of paths")
    if null:
        yield from _listed(data.split(b"\0"))
        return
    try:
        load_image(data)
    except ImageError as error:
        lines = data.splitlines()
        if b"\0" not in data and any(_exists(line) for line in lines):
            yield from _listed(lines)
            return
        if "not an image" in str(error):
            raise UsageError(f"{STDIN}: {_not_understood(data)}") from None
    yield STDIN, _StandardInput(data)


def _listed(paths: Iterable[bytes]) -> Iterator[tuple[str, ImageLike]]:
    yield from ((name, name) for name in map(os.fsdecode, paths) if name.strip())


def _exists(path: bytes) -> bool:
    try:
        return bool(path.strip()) and Path(os.fsdecode(path)).exists()
    except OSError:  # longer than a path may be
        return False


def _not_understood(data: bytes) -> str:
    first, separator, _ = data.partition(b"\0")
    if separator and _exists(first):
        return "a list of paths with zero bytes between them is read with -0"
    start = first_line(data[:200].decode("utf-8", "replace"), 60)
    return f"neither an image nor a list of paths of files that exist; it begins with {start!r}"
