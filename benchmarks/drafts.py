"""What a draft head saves: passes and time a word with and without its draft, word by word in turn, and that no word
changes."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from clip4str.benchmarks.peer_turns import labelled
from clip4str.benchmarks.peers import choose_sets
from clip4str.benchmarks.word_options import add_word_options, check_word_options
from clip4str.core.console import Parser, run_script
from clip4str.core.driver import Decoding
from clip4str.core.errors import UsageError
from clip4str.core.machine_info import busy, describe, machine_info
from clip4str.core.output_files import write_json
from clip4str.data.protocol import Protocol
from clip4str.data.word_lmdb import LmdbWords
from clip4str.runtime import Recognizer, Word
from clip4str.runtime.recognizer import default_bundle

PROGRAM = "benchmarks/drafts.py"
_EPILOG = """\
examples:
  python benchmarks/drafts.py --data data/test --sets SVT CUTE80
  python benchmarks/drafts.py --data data/test --bundle bundles/my-int8 --json drafts.json

Both sides are the same bundle, ONNX Runtime on a CPU, one word at a time, in an
order drawn anew for each; one begins with the draft head's word, the other with
a first pass from the start token alone. Times are from pixels in memory to text.
"""
WITHOUT, WITH = 0, 1


@dataclass
class Side:
    """What one way of starting took, word by word."""

    seconds: list[float] = field(default_factory=list)
    visual: list[int] = field(default_factory=list)
    cross: list[int] = field(default_factory=list)


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=PROGRAM, description=__doc__, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add_word_options(parser)
    add = parser.add_argument
    add("--bundle", type=Path, metavar="DIR", help="bundle of a network with a draft head (default: the newest)")
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
    if busy(info):
        print(f"taken while other work ran (load {info['load_before']}): times are too long, and ratios rough")
    if args.json:
        write_json(args.json, {"sets": rows, "bundle": sides[WITH].manifest.name, "machine": info, "limit": args.limit})
    return 0


def measure(
    recognizers: Sequence[Recognizer], name: str, folder: Path, limit: int | None, progress: bool
) -> dict[str, Any] | None:
    """A row of the report; None if the set has no word that can be read. recognizers: WITHOUT and WITH a draft."""
    with LmdbWords(folder) as data:
        pictures = [pixels for pixels, _ in labelled(data, Protocol(), limit) if pixels is not None]
    order, sides, changed, confidence = np.random.default_rng(0), (Side(), Side()), [], 0.0
    for picture in pictures[:10]:
        for recognizer in recognizers:
            recognizer.read([picture])
    for picture in tqdm(pictures, desc=name, unit="word", disable=None if progress else True):
        words: dict[int, Word] = {}
        for which in order.permutation(2).tolist():
            words[which] = _turn(recognizers[which], picture, sides[which])
        if words[WITHOUT].text != words[WITH].text:
            changed.append((words[WITHOUT].text, words[WITH].text))
        else:
            confidence = max(confidence, abs(words[WITHOUT].confidence - words[WITH].confidence))
    return _row(name, sides, changed, confidence) if pictures else None


def _turn(recognizer: Recognizer, picture: np.ndarray, side: Side) -> Word:
    recognizer.driver.cache.clear()
    recognizer.reset_stats()
    began = time.perf_counter()
    word = recognizer.read([picture])[0]
    side.seconds.append(time.perf_counter() - began)
    side.visual.append(recognizer.stats.visual_passes)
    side.cross.append(recognizer.stats.cross_passes)
    return word


def _row(name: str, sides: Sequence[Side], changed: list[tuple[str, str]], confidence: float) -> dict[str, Any]:
    """right: percent of drafts that needed one pass. settled: words by number of visual passes, from 0 on. ratio: of
    the times at the same word, quartiles over words. confidence: the largest difference where words are the same."""
    without, drafted = (1000 * np.array(side.seconds) for side in sides)
    figures = {
        key: {
            "visual_passes": round(float(np.mean(side.visual)), 3),
            "settled": np.bincount(side.visual).tolist(),
            "cross_passes": round(float(np.mean(side.cross)), 3),
            "ms_median": round(float(np.median(side.seconds)) * 1000, 3),
        }
        for key, side in zip(("without", "with"), sides)
    }
    low, middle, high = (round(float(q), 3) for q in np.percentile(drafted / without, (25, 50, 75)))
    return {
        "set": name, "words": len(drafted), **figures,
        "right": round(100 * float(np.mean(np.array(sides[WITH].visual) == 1)), 2),
        "ratio": {"median": middle, "quartile_1": low, "quartile_3": high},
        "changed": len(changed), "examples": changed[:20], "confidence": confidence,
    }  # fmt: skip


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """One line a set, as Markdown."""
    print("\n| set | words | visual passes | with draft | drafts right | ms a word | with draft | ratio | changed |")
    print("|:---|---:|---:|---:|---:|---:|---:|---:|---:|")
    for row in rows:
        before, after, ratio = row["without"], row["with"], row["ratio"]
        print(
            f"| {row['set']} | {row['words']} | {before['visual_passes']:.2f} | {after['visual_passes']:.2f} "
            f"| {row['right']:.1f} % | {before['ms_median']:.2f} | {after['ms_median']:.2f} "
            f"| {ratio['median']:.2f} ({ratio['quartile_1']:.2f} to {ratio['quartile_3']:.2f}) | {row['changed']} |"
        )
    print()
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
