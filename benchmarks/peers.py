"""This package beside the recognisers that people install today: word accuracy, size on disk and time per word."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clip4str.benchmarks.figures import between, markdown, percent
from clip4str.benchmarks.peer_adapters import PEERS, REFERENCE, Contender, open_peers, ours
from clip4str.benchmarks.peer_turns import Answers, race, report
from clip4str.benchmarks.word_options import check_word_options, finish, word_parser
from clip4str.core.charts import check_chart
from clip4str.core.console import run_script
from clip4str.core.errors import UsageError
from clip4str.core.machine_info import describe, machine_info
from clip4str.data.labelled_words import choose_sets, labelled
from clip4str.data.protocol import Protocol
from clip4str.data.word_lmdb import LmdbWords
from clip4str.runtime.default_bundle import default_bundle

PROGRAM = "benchmarks/peers.py"
_EPILOG = """\
examples:
  pip install 'clip4str[peers]' azcrawlerpy-recaptcha-text==1.0.1
  python benchmarks/peers.py --data data/test --sets SVT CUTE80 --chart peers.png
  python benchmarks/peers.py --data data/SVT data/CUTE80 --bundle bundles/a-fp32 bundles/a-fp16

Every recogniser reads every word, cropped as it is in the set, one at a time,
all of them before the next word. What a peer needs is read from what is
installed; nothing is downloaded, and a peer that is not there is a line in the
report. Times are from pixels in memory to text. A word is compared by the
standard protocol (clip4str eval --help); intervals are Wilson's, 95 %. Times of
a shared machine differ from run to run; the ratios, taken word by word, less.
"""


def build_parser() -> argparse.ArgumentParser:
    parser = word_parser(PROGRAM, __doc__, _EPILOG)
    add = parser.add_argument
    add("--bundle", type=Path, nargs="+", metavar="DIR", help="bundles to read with (default: the newest)")
    add("--peers", nargs="*", choices=PEERS, metavar="NAME", help=f"only these of {', '.join(PEERS)}; none: no peer")
    add("--chart", type=Path, metavar="FILE", help="draw accuracy against time (.png, .svg or .pdf)")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    check_word_options(args)
    check_chart(args.chart)
    sets = choose_sets(args.data, args.sets)
    bundles = args.bundle or [default_bundle()]
    sides = [ours(bundle, args.threads) for bundle in bundles]
    peers, missing = open_peers(args.threads, args.peers)
    info = machine_info(args.threads)
    packages = sorted({peer.package for peer in peers})
    print(f"{describe(info)}{''.join(f', {package}' for package in packages)}")
    rows, left_out = compare([*sides, *peers], sets, args.threads, args.limit, not args.quiet)
    missing.update(left_out)
    print_table(rows)
    for package, why in missing.items():
        print(f"{package}: {why}")
    protocol = Protocol().to_dict()
    finish(args, info, {"recognisers": rows, "missing": missing, "protocol": protocol})
    if args.chart:
        from clip4str.benchmarks.peer_chart import save_chart

        threads = f"{args.threads} thread{'s' if args.threads > 1 else ''}"
        save_chart(rows, args.chart, f"{info['cpu']}, {threads}, one word at a time")
    return 0


def compare(
    sides: Sequence[Contender], sets: dict[str, Path], threads: int, limit: int | None, progress: bool
) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """The rows of the report, and who has none because it read no word: name -> one line."""
    protocol, answers = Protocol(), dict[str, list[Answers]]()
    for name, folder in sets.items():
        with LmdbWords(folder) as data:
            words = list(labelled(data, protocol, limit))
        if not words:
            print(f"{name}: has no word that counts", file=sys.stderr)
            continue
        unreadable = sum(word.pixels is None for word in words)
        if unreadable:
            print(f"{name}: {unreadable} images cannot be read and count as wrong", file=sys.stderr)
        if unreadable == len(words):
            continue
        answers[name] = race(sides, words, protocol, name, threads, progress)
    if not answers:
        raise UsageError(f"no words to read in {', '.join(sets)}")
    able = [k for k in range(len(sides)) if any(taken[k].failed < len(taken[k].seconds) for taken in answers.values())]
    some = next(iter(answers.values()))
    broken = {side.name: f"fails at every word ({some[k].error})" for k, side in enumerate(sides) if k not in able}
    if not able:
        raise UsageError("; ".join(f"{name}: {why}" for name, why in broken.items()))
    kept = [sides[k] for k in able]
    reference = next((k for k, side in enumerate(kept) if side.name == REFERENCE), 0)
    return report(kept, {name: [taken[k] for k in able] for name, taken in answers.items()}, reference), broken


def print_table(rows: Sequence[dict[str, Any]]) -> None:
    """One line a recogniser, as Markdown; then what it is, and what went wrong."""
    several = len(rows[0]["accuracy"]) > 1
    heads = ["", "MB", *(f"{name} ({value['words']})" for name, value in rows[0]["accuracy"].items())]
    heads += [f"all ({rows[0]['combined']['words']})"] if several else []
    heads += ["ms a word", "quartiles", f"time / {rows[0]['ratio']['to']}'s", "quartiles"]
    lines = []
    for row in rows:
        accuracies = [*row["accuracy"].values(), *([row["combined"]] if several else [])]
        times = [cell for key in ("latency_ms", "ratio") for cell in (f"{row[key]['median']:.2f}", between(row[key]))]
        lines.append([row["name"], f"{row['bytes'] / 1e6:.1f}", *map(percent, accuracies), *times])
    print(f"\n{markdown(heads, lines)}\n")
    for row in rows:
        notes = [row["package"], row["note"], f"failed at {row['failed']} words" if row["failed"] else ""]
        print(f"{row['name']}: {'; '.join(note for note in notes if note)}")


if __name__ == "__main__":
    sys.exit(run_script(PROGRAM, main))
