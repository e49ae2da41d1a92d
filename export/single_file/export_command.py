"""A bundle -> one ONNX file: `clip4str export [BUNDLE] --output word.onnx`."""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clip4str.core.charset_file import read_charset
from clip4str.core.console import Parser
from clip4str.core.errors import UsageError
from clip4str.core.packaged import PACKAGED
from clip4str.core.reading import Decoding
from clip4str.export.parity_images import sample_images
from clip4str.runtime import Recognizer
from clip4str.runtime.bundle import Bundle
from clip4str.runtime.read_command import announced_bundle
from clip4str.runtime.what_is import is_checkpoint_file

from . import PASSES_SHOWN

if TYPE_CHECKING:  # they need onnx, --help does not
    from .write import Options

MIN_AGREEMENT = 0.99
PACKAGED_LICENSE = "Apache-2.0"
_DESCRIPTION = """\
Write a bundle as one ONNX file: pixels in, words out, in standard operators, for ONNX Runtime in any language,
OpenVINO, TensorRT or a browser. docs/single-file.md says what goes in and what comes out. Ends by comparing its words
with the bundle's on sample crops, and refuses to write a file that reads differently.
"""
_EPILOG = """\
examples:
  clip4str export --output word.onnx                            the newest bundle; as exact as the bundle itself
  clip4str export bundles/my-fp16 --passes 3,2 --output word.onnx    without control flow, for engines
  clip4str export --resize --strings --output word.onnx         pictures of any size in, texts out
"""

Say = Callable[[str], object]


def main(argv: Sequence[str] | None = None) -> int:
    o = _parser().parse_args(argv)
    from .write import Options

    charset_test = read_charset(o.charset_test).characters if o.charset_test else None
    options = Options(
        passes=_passes(o.passes), static=o.static, uint8=o.uint8_input, resize=o.resize, strings=o.strings,
        half_storage=o.half_storage, decoding=Decoding(o.decode, o.refine, o.branch), charset_test=charset_test,
        license=o.license,
    )  # fmt: skip
    folder = Path(o.bundle) if o.bundle else _announced()
    if is_checkpoint_file(folder):
        raise UsageError(f"{folder} is a checkpoint: clip4str build {folder} --single-file {o.output}")
    export_bundle(folder, Path(o.output), options, o.force, o.sample_images, o.min_agreement, print)
    return 0


def export_bundle(
    folder: Path,
    output: Path,
    options: Options | None = None,
    force: bool = False,
    sample_folder: Path | str | None = None,
    min_agreement: float | None = None,
    say: Say = lambda _: None,
) -> None:
    """Write the file, and FILE.data beside it where weights are more than 1.8 GB, once its words are the bundle's on
    sample crops: in at least `min_agreement` of those that it calls settled.

    force: replace a file that is there. Raises UsageError, BundleError, CharsetError, ImageError, ParityError,
    BackendError.
    """
    from .check import check_file
    from .write import Options, write_graph

    options = options or Options()
    options.check()
    min_agreement = MIN_AGREEMENT if min_agreement is None else min_agreement
    if not 0 <= min_agreement <= 1:
        raise UsageError(f"the agreement wanted is a share from 0 to 1, not {min_agreement:g}")
    check_output(output, force)
    bundle = Bundle.open(folder)
    check_form(bundle.manifest.precision)
    images = sample_images(Path(sample_folder) if sample_folder is not None else None)
    if not options.license:
        options = options.licensed(PACKAGED_LICENSE if _is_packaged(bundle) else "that of its checkpoint")
    with tempfile.TemporaryDirectory(prefix=f".{output.name[:100]}.", dir=output.absolute().parent) as scratch:
        paths = write_graph(bundle, Path(scratch) / output.name, options)
        with Recognizer.load(folder, "onnxruntime", decoding=options.decoding, charset_test=options.charset_test,
                             cache_size=0) as recognizer:  # fmt: skip
            found = check_file(recognizer, paths[0], images, options)
        say(found.table())
        found.check(min_agreement)
        for path in reversed(paths):  # the graph last: it names its data
            os.replace(path, output.absolute().parent / path.name)
            size = (output.absolute().parent / path.name).stat().st_size
            say(f"{output.parent / path.name}: {size / 1e6:.1f} MB")


def check_form(precision: str | None) -> None:
    """Raises UsageError for bundles whose stages do not go into one file."""
    if precision == "fp8":
        raise UsageError("fp8 bundles cannot be one file: export the fp16 or int8 bundle")


def check_output(output: Path, force: bool) -> None:
    """Raises UsageError if a single file may not be written there."""
    if output.suffix.lower() != ".onnx":
        raise UsageError(f"{output}: its name must end in .onnx")
    parent = output.absolute().parent
    if not parent.is_dir():
        raise UsageError(f"{output}: its folder does not exist")
    if (parent / "manifest.json").is_file():
        raise UsageError(f"{output}: {parent} is a bundle, which holds nothing else; name another folder")
    for path in (output, output.with_name(f"{output.name}.data")):
        if os.path.lexists(path) and (not path.is_file() or not force):
            raise UsageError(f"{path}: exists; --force replaces a file, --output writes elsewhere")


def _announced() -> Path:
    """The default bundle, and one line on stderr that says which it is."""
    folder = announced_bundle()
    if folder != PACKAGED:
        print(f"no bundle given: taking {folder}", file=sys.stderr)
    return folder


def _is_packaged(bundle: Bundle) -> bool:
    try:
        return Bundle.open(PACKAGED, verify=False).manifest.checkpoint == bundle.manifest.checkpoint
    except Exception:
        return False


def _passes(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    parts = text.split(",")
    if len(parts) != 2 or not all(part.isascii() and part.isdecimal() and len(part) < 4 for part in parts):
        raise UsageError(f"--passes is two numbers, visual and cross-modal, such as {PASSES_SHOWN}, not {text!r}")
    return int(parts[0]), int(parts[1])


def _parser() -> argparse.ArgumentParser:
    parser = Parser(prog="clip4str export", description=_DESCRIPTION, epilog=_EPILOG,
                    formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    add = parser.add_argument
    add(
        "bundle",
        nargs="?",
        metavar="BUNDLE",
        help="default: $CLIP4STR_BUNDLE, else the newest in ./bundles, else the packaged network",
    )
    add("--output", required=True, metavar="FILE", help="the file to write, NAME.onnx")
    add("--force", action="store_true", help="replace a file that is there")
    group = parser.add_argument_group("form")
    add = group.add_argument
    add("--passes", metavar="V,C", help="decoder passes, visual and cross-modal, and no control flow: for "
        "engines; `settled` says which rows may differ (default: a loop, until all are settled)")  # fmt: skip
    add("--static", action="store_true", help="a loop whose shapes do not depend on the words: slower on a CPU")
    add("--uint8-input", action="store_true", help="pictures (N, H, W, 3) of bytes; normalised inside")
    add("--resize", action="store_true", help="the same of any height and width; resized inside as Pillow does")
    add("--strings", action="store_true", help="also give the text, as strings")
    add("--half-storage", action="store_true", help="store float32 weights as float16, which halves the file; the "
        "arithmetic stays float32")  # fmt: skip
    group = parser.add_argument_group("reading")
    add = group.add_argument
    add("--decode", choices=("ar", "nar"), default="ar", help="ar: letter by letter (default); nar: all at once")
    add("--refine", type=int, default=1, metavar="N", help="rounds of refinement (default 1)")
    add("--branch", choices=("cross", "visual"), default="cross", help="visual: without the text tower")
    add("--charset-test", metavar="FILE", help="characters that captions are reduced to: a file or the string itself")
    group = parser.add_argument_group("checks")
    add = group.add_argument
    add("--sample-images", metavar="DIR", help="word crops to compare words on; default: the bundled ones")
    add("--min-agreement", metavar="SHARE", type=float, default=MIN_AGREEMENT,
        help=f"share of settled words that must be the bundle's (default {MIN_AGREEMENT})")  # fmt: skip
    add("--license", metavar="TEXT", default="", help="of the network, for the file's metadata")
    return parser
