"""clip4str atlas: the glyphs of the machine's fonts in one file; how many of the fonts it uses, and why not all."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from clip4str.core.console import Parser
from clip4str.core.errors import UsageError
from clip4str.core.output_files import check_output
from clip4str.training.fonts import find_fonts, survey

if TYPE_CHECKING:  # it needs safetensors, --help does not
    from clip4str.training.drawing.atlas import Atlas

_EPILOG = """\
example:
  clip4str atlas --output atlas.safetensors
  clip4str train --data sets/mine --render 0.5 --render-atlas atlas.safetensors --output runs/mine --minutes 60

A font file is used if it draws all letters and digits, each to be told from the others.
Of those that are not, it is said how many there are and why.
"""


def build_from(folders: tuple[str, ...] | None, faces: int, per_family: int, workers: int = 1) -> tuple[Atlas, str]:
    """An atlas of the fonts below some folders, or else of all that the system knows; and what of them it uses, in a
    line. Raises DataError."""
    from clip4str.training.drawing.atlas_build import build, choose_faces

    find_fonts(folders)  # raises where there is none
    found = survey(folders)
    chosen, of_families = (choose_faces(found.fonts, most, per_family) for most in (faces, len(found.fonts)))
    refused = Counter(dict(found.refused))
    files = refused.total() + len(found.fonts)
    refused[f"are beyond {per_family} of a family"] = len(found.fonts) - len(of_families)
    refused[f"are beyond the {faces} most useful"] = len(of_families) - len(chosen)
    atlas = build(chosen, workers, refused)
    families = len({face.family for face in atlas.faces})
    left_out = ", ".join(f"{count} {why}" for why, count in refused.most_common() if count)
    return atlas, f"{files} font files: {len(atlas)} faces of {families} families used" + (
        f"; left out: {left_out}" if left_out else ""
    )


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog="clip4str atlas", description="Draw the glyphs of this machine's fonts into one file.",
                    epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    add = parser.add_argument
    add("--output", type=Path, required=True, metavar="FILE", help="atlas to write (.safetensors)")
    add("--faces", type=int, default=1200, metavar="N", help="most faces (default: %(default)s)")
    add("--per-family", type=int, default=6, metavar="N", help="most faces of one family (default: %(default)s)")
    add("--fonts", nargs="+", metavar="DIR", help="look for fonts here only (default: all the system knows)")
    add("--workers", type=int, default=1, metavar="W", help="processes (default: 1)")
    add("--force", action="store_true", help="replace an existing file")
    args = parser.parse_args(argv)
    from clip4str.training.drawing.atlas import save_atlas

    if not args.output.is_file():
        check_output(args.output)
    elif not args.force:
        raise UsageError(f"{args.output} exists already: choose another --output, or replace it with --force")
    if min(args.faces, args.per_family, args.workers) < 1:
        raise UsageError("--faces, --per-family and --workers are at least 1")
    for folder in args.fonts or ():
        if not Path(folder).is_dir():
            raise UsageError(f"--fonts {folder}: not a folder")
    start = time.perf_counter()
    print("looking at the fonts, then drawing each: a second or two a face", file=sys.stderr, flush=True)
    atlas, used = build_from(tuple(args.fonts) if args.fonts else None, args.faces, args.per_family, args.workers)
    save_atlas(atlas, args.output)
    kinds = ", ".join(f"{n} {kind}" for kind, n in Counter(f.licence for f in atlas.faces).most_common())
    print(f"{used}\n{args.output}: licences {kinds}; {args.output.stat().st_size / 2**20:.1f} MB, "
          f"{time.perf_counter() - start:.0f} s")  # fmt: skip
    return 0
