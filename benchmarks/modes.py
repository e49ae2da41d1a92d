"""Word accuracy and time of every way to decode, word by word in turn: what each part of predict-and-refine gains."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from clip4str.benchmarks.peer_adapters import Contender, ours
from clip4str.benchmarks.peers import compare, print_table
from clip4str.benchmarks.word_options import check_word_options, finish, word_parser
from clip4str.core.console import run_script
from clip4str.core.machine_info import describe, machine_info
from clip4str.core.reading import Decoding
from clip4str.data.labelled_words import choose_sets
from clip4str.runtime.default_bundle import default_bundle

PROGRAM = "benchmarks/modes.py"
_EPILOG = """\
examples:
  python benchmarks/modes.py --data data/test --sets SVT CUTE80
  python benchmarks/modes.py --data data/test --refine 0 1 2 3 --json modes.json

ar: left to right, nar: all letters at once. refine: rounds of cloze refinement.
visual: without the text tower and its decoder. The first row is the published
way; ratios are to its time, word by word. One word at a time, on a CPU.
"""


def build_parser() -> argparse.ArgumentParser:
    parser = word_parser(PROGRAM, __doc__, _EPILOG)
    add = parser.add_argument
    add("--bundle", type=Path, metavar="DIR", help="bundle to read with (default: the newest)")
    add("--refine", type=int, nargs="+", default=[0, 1, 2], metavar="N", help="rounds to try (default: 0 1 2)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    check_word_options(args)
    sets = choose_sets(args.data, args.sets)
    sides = ways(args.bundle or default_bundle(), args.threads, args.refine)
    info = machine_info(args.threads)
    print(f"{sides[0].package}, {describe(info)}")
    rows, _ = compare(sides, sets, args.threads, args.limit, not args.quiet)
    print_table(rows)
    finish(args, info, {"ways": rows})
    return 0


def ways(bundle: Path, threads: int, rounds: Sequence[int]) -> list[Contender]:
    """All ways to decode, the published one first."""
    wanted = [Decoding(d, r, b) for b in ("cross", "visual") for d in ("ar", "nar") for r in sorted(set(rounds))]
    return [
        replace(ours(bundle, threads, way), name=f"{way.branch}, {way.decode}, refine {way.refine}")
        for way in dict.fromkeys([Decoding(), *wanted])
    ]


if __name__ == "__main__":
    sys.exit(run_script(PROGRAM, main))
