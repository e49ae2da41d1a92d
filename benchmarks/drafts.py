"""What a draft head saves: passes and time per word with and without its draft, word by word in turn; no word must
change."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clip4str.benchmarks.figures import between, markdown, quartiles
from clip4str.benchmarks.peer_adapters import Contender
from clip4str.benchmarks.peer_turns import race
from clip4str.benchmarks.word_options import check_word_options, finish, word_parser
from clip4str.core.console import run_script
from clip4str.core.errors import DataError, UsageError
from clip4str.core.machine_info import describe, machine_info
from clip4str.core.reading import Decoding
from clip4str.data.labelled_words import choose_sets, labelled
from clip4str.data.protocol import Protocol
from clip4str.data.word_lmdb import LmdbWords
from clip4str.runtime import Recognizer, Stats, Word
from clip4str.runtime.default_bundle import default_bundle

PROGRAM = "benchmarks/drafts.py"
_EPILOG = """\
examples:
  python benchmarks/drafts.py --data data/test --sets SVT CUTE80
  python benchmarks/drafts.py --data data/test --bundle bundles/my-int8 --json drafts.json

Both sides are the same bundle, ONNX Runtime on a CPU, one word at a time, in a
random order for each; one begins with the draft head's word, the other with
a first pass from the start token alone. Times are from pixels in memory to text.
"""
WITHOUT, WITH = 0, 1


def build_parser() -> argparse.ArgumentParser:
    parser = word_parser(PROGRAM, __doc__, _EPILOG)
    parser.add_argument(
        "--bundle", type=Path, metavar="DIR", help="bundle of a network with a draft head (default: the newest)"
    )
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    check_word_options(args)
    sets = choose_sets(args.data, args.sets)
    bundle = args.bundle or default_bundle()
    sides = [
        Recognizer.load(bundle, "onnxruntime", threads=args.threads, batch_size=1, decoding=Decoding(draft=draft))
        for draft in (False, True)
    ]
    if not sides[WITH].manifest.draft_positions:
        raise UsageError(f"{bundle}: its network has no draft head; clip4str train --draft-head adds one")
    info = machine_info(args.threads)
    print(f"{sides[WITH].manifest.name}, {describe(info)}")
    rows = [row for name, folder in sets.items() if (row := measure(sides, name, folder, args.limit, not args.quiet))]
    if not rows:
        raise UsageError(f"no words to read in {', '.join(sets)}")
    print_table(rows)
    finish(args, info, {"sets": rows, "bundle": sides[WITH].manifest.name})
    return 0


def measure(
    recognizers: Sequence[Recognizer], name: str, folder: Path, limit: int | None, progress: bool
) -> dict[str, Any] | None:
    """A row of the report; None if the set has no word that can be read. recognizers: WITHOUT and WITH a draft.

    right: percent of drafts that needed one pass. settled: number of words by visual passes, from 0 on. ratio: of the
    times for the same word, quartiles over words. confidence: the largest difference where words are the same.
    """
    with LmdbWords(folder) as data:
        words = [word for word in labelled(data, Protocol(), limit) if word.pixels is not None]
    if not words:
        return None
    kept: tuple[list[tuple[Word, Stats]], ...] = ([], [])
    sides = [_side(recognizer, taken) for recognizer, taken in zip(recognizers, kept)]
    answers = race(sides, words, Protocol(), name, progress=progress)
    if failed := next((taken.error for taken in answers if taken.failed), None):
        raise DataError(f"{name}: a word could not be read ({failed})")
    without, drafted = (taken[-len(words) :] for taken in kept)  # those before were read to warm up
    pairs = [(before, after) for (before, _), (after, _) in zip(without, drafted)]
    changed = [(before.text, after.text) for before, after in pairs if before.text != after.text]
    figures = {}
    for key, taken, timed in zip(("without", "with"), (without, drafted), answers):
        figures[key] = {
            "visual_passes": round(float(np.mean([stats.visual_passes for _, stats in taken])), 3),
            "settled": np.bincount([stats.visual_passes for _, stats in taken]).tolist(),
            "cross_passes": round(float(np.mean([stats.cross_passes for _, stats in taken])), 3),
            "ms_median": round(float(np.median(timed.seconds)) * 1000, 3),
        }
    return {
        "set": name, "words": len(words), **figures,
        "right": round(100 * float(np.mean([stats.visual_passes == 1 for _, stats in drafted])), 2),
        "ratio": quartiles(np.array(answers[WITH].seconds) / answers[WITHOUT].seconds),
        "changed": len(changed), "examples": changed[:20],
        "confidence": max((abs(a.confidence - b.confidence) for a, b in pairs if a.text == b.text), default=0.0),
    }  # fmt: skip


def _side(recognizer: Recognizer, taken: list[tuple[Word, Stats]]) -> Contender:
    """A contender that appends every word it reads, with its statistics, to `taken`."""

    def forget() -> None:
        recognizer.driver.cache.clear()
        recognizer.reset_stats()

    def read(pixels: np.ndarray) -> str:
        word = recognizer.read([pixels])[0]
        taken.append((word, recognizer.stats))
        return word.text

    return Contender("", "", [], read, forget=forget)


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """One line a set, as Markdown."""
    heads = (
        "set",
        "words",
        "visual passes",
        "with draft",
        "drafts right",
        "ms a word",
        "with draft",
        "ratio",
        "changed",
    )
    lines = [
        [row["set"], row["words"], *(f"{row[key]['visual_passes']:.2f}" for key in ("without", "with")),
         f"{row['right']:.1f} %", *(f"{row[key]['ms_median']:.2f}" for key in ("without", "with")),
         f"{row['ratio']['median']:.2f} ({between(row['ratio'])})", row["changed"]]
        for row in rows
    ]  # fmt: skip
    print(f"\n{markdown(heads, lines)}\n")
    words, changed = (sum(row[key] for row in rows) for key in ("words", "changed"))
    for key in ("without", "with"):
        counts = [sum(sum(row[key]["settled"][: most + 1]) for row in rows) for most in range(1, 6)]
        shares = ", ".join(f"{100 * count / words:.1f}" for count in counts)
        print(f"settled in up to 1, 2, 3, 4, 5 visual passes, {key} draft: {shares} %")
    print(
        f"words changed: {changed} of {words}; confidences differ by at most {max(r['confidence'] for r in rows):.1e}"
    )


if __name__ == "__main__":
    sys.exit(run_script(PROGRAM, main))
