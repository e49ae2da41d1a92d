#!/usr/bin/env python3
"""Makes what training on drawn words needs, on a machine that lacks it: fonts, glyph atlas, word list, pool of words.

python training/provide.py --folder data
python training/provide.py --folder data --real words/train/real/IIIT5K --words 300000 --processes 2
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from clip4str.core.atomic_files import replaced
from clip4str.core.bpe import BytePairTokenizer
from clip4str.core.console import Parser, one_line
from clip4str.core.errors import Clip4StrError, UsageError
from clip4str.training import font_packages
from clip4str.training.drawing.shards import PART, Recipe, draw_parts, locked, parts

PROGRAM = "provide.py"
FACES, PER_FAMILY = 2000, 4
_EPILOG = f"""\
It makes, each only where it is missing, each complete or not at all:
  DIR/fonts/               single faces out of npm packages (training/font_packages.tsv
                           pins them); families.tsv names each one's licence. Also
                           installs Debian's fonts and dictionary, where it is root
  DIR/atlas.safetensors    their glyphs, and those of the machine's own fonts:
                           train.py --render-atlas
  DIR/words.txt            words of CLIP's byte-pair vocabulary, most frequent first:
                           train.py --words
  DIR/pool/seed-S/         --words N words drawn with --seed S, in parts of {PART:,}
                           that appear complete: train.py --synthetic DIR/pool

What cannot be had (no npm, no network, not root) is said in a line on stderr, and the
rest is made from what is there. Safe to kill at any moment; the same command goes on.
More --words add to the pool, another --seed draws others beside it. What is there is
kept, whatever it was made from: remove a file or folder to have it made anew.

exit code: 0 all is there, 2 an error (one line), 130 interrupted
"""


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(prog=PROGRAM, description="Make what training on drawn words needs.", epilog=_EPILOG,
                    formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    add = parser.add_argument
    add("--folder", type=Path, required=True, metavar="DIR", help="where all of it lies")
    add("--real", nargs="+", default=[], metavar="DIR",
        help="LMDBs of real words to train on: they lend texts and blurred grounds to the pool")  # fmt: skip
    add("--leave-out", metavar="FILE", help="pictures of --real to leave out: see train.py")
    add("--words", type=int, default=0, metavar="N",
        help=f"words in the pool, rounded up to parts of {PART:,} (default: 0, no pool)")  # fmt: skip
    add("--seed", type=int, default=0, metavar="S", help="other words for another seed (default: %(default)s)")
    add("--size", type=int, nargs=2, default=(32, 128), metavar=("H", "W"),
        help="of a picture in the pool: the input size of the network to train (default: 32 128)")  # fmt: skip
    add("--processes", type=int, default=1, metavar="P", help="processes that draw (default: %(default)s)")
    add("--faces", type=int, default=FACES, metavar="N", help="most faces in the atlas (default: %(default)s)")
    add("--no-install", action="store_true", help="fetch and install nothing: the fonts that are there")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    try:
        args = build_parser().parse_args(argv)
        if args.words < 0 or args.seed < 0 or min(args.processes, args.faces) < 1:
            raise UsageError("--words and --seed are 0 or more, --processes and --faces at least 1")
        if min(args.size) < 8 or max(args.size) > 1024:
            raise UsageError("the sides of --size are 8 to 1024")
        if args.folder.exists() and not args.folder.is_dir():
            raise UsageError(f"{args.folder}: is a file; --folder names a folder, which may be a new one")
        with locked(args.folder / ".lock", f"{args.folder}: another {PROGRAM} is at work there; wait for it or end it"):
            provide(args)
    except Clip4StrError as error:
        print(f"{PROGRAM}: error: {one_line(error)}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"{PROGRAM}: error: {one_line(error.filename)}: {one_line(error.strerror)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"{PROGRAM}: interrupted; the same command goes on", file=sys.stderr)
        return 130
    return 0


def provide(args: argparse.Namespace) -> None:
    """All steps; says of each what is there."""
    fonts, atlas, words = args.folder / "fonts", args.folder / "atlas.safetensors", args.folder / "words.txt"
    fonts.mkdir(exist_ok=True)
    if not args.no_install:
        install_fonts(fonts, not atlas.exists())
    if not atlas.exists():
        build_atlas(atlas, fonts, args.faces, args.processes)
    print(f"atlas: {atlas}, {atlas.stat().st_size / 2**20:.0f} MB")
    if not words.exists():
        with replaced(words) as draft:
            draft.write_text("\n".join((*frequent_words(), "")), encoding="utf-8")
    print(f"word list: {words}")
    if args.words:
        recipe = Recipe(atlas, (words,), tuple(args.real), args.leave_out, tuple(args.size), args.seed)
        fill_pool(args.folder / "pool", recipe, args.words, args.processes)


def install_fonts(folder: Path, faces: bool) -> None:
    """Fetches and installs what is missing; what cannot be had is said in a line. faces: for an atlas, too, not only
    Debian's packages, whose other scripts are drawn while training."""
    debian, npm = font_packages.read_list()
    problems = [font_packages.install_debian(debian)]
    if faces:
        problems.append(font_packages.fetch_npm(npm, folder))
    for problem in filter(None, problems):
        print(f"{PROGRAM}: {one_line(problem)}", file=sys.stderr)
    rows = [row for row in font_packages.read_families(folder) if row.file != "-"]
    print(f"fonts: {folder}, {len(rows)} faces of {len({row.package for row in rows})} npm packages")


def build_atlas(atlas: Path, fonts: Path, faces: int, processes: int) -> None:
    """From the machine's own fonts and those in the folder."""
    from clip4str.training.atlas_command import build_from
    from clip4str.training.drawing.atlas import save_atlas
    from clip4str.training.fonts import FOLDERS, font_files

    folders = (*FOLDERS, str(fonts)) if font_files((fonts,)) else None
    drawn, used = build_from(folders, faces, PER_FAMILY, processes)
    save_atlas(drawn, atlas)
    print(f"atlas: {used}")


def frequent_words() -> list[str]:
    """English words and names, most frequent first: whole words of CLIP's byte-pair vocabulary, whose merges come in
    the order of their frequency in captions."""
    merged = ("".join(pair) for pair in BytePairTokenizer().ranks)
    whole = (token.removesuffix("</w>") for token in merged if token.endswith("</w>"))
    return [word for word in whole if len(word) > 1 and word.isascii() and word.isalpha()]


def fill_pool(pool: Path, recipe: Recipe, words: int, processes: int) -> None:
    """Draws the parts that are missing."""
    wanted = parts(pool, recipe.seed, words)
    missing = [part for part in wanted if not part.folder.exists()]
    if missing:
        draw_parts(recipe, missing, processes)
    total = sum(part.words for part in wanted)
    print(f"pool: {wanted[0].folder.parent}, {total} words in {len(wanted)} parts, {len(missing)} of them new")


if __name__ == "__main__":
    raise SystemExit(main())
