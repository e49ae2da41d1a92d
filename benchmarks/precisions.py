#!/usr/bin/env python3
"""What bundles of one network read beside the first of them: word accuracy, and how many words are the same."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from clip4str.benchmarks.figures import markdown
from clip4str.benchmarks.word_options import check_word_options, finish, word_parser
from clip4str.core.batches import batches
from clip4str.core.console import run_script
from clip4str.core.errors import UsageError
from clip4str.core.machine_info import describe, machine_info
from clip4str.core.progress import Progress
from clip4str.core.text import Charset
from clip4str.data.labelled_words import LabelledWord, choose_sets, labelled
from clip4str.data.protocol import Protocol
from clip4str.data.word_lmdb import LmdbWords
from clip4str.runtime import Recognizer
from clip4str.runtime.bundle import Bundle

PROGRAM = "benchmarks/precisions.py"
BATCH = 16
_EPILOG = """\
examples:
  clip4str build --fp32 --output fp32; clip4str build --fp8 --target tensorrt --no-engines --output fp8
  python benchmarks/precisions.py --bundles fp32 fp8 --data data/test --sets SVT CUTE80

Bundles are read on ONNX Runtime, which computes their numbers exactly as they are
rounded, in any time. Accuracy is by the protocol of clip4str eval; words are the
same if they are in every character, case and all.
"""


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    check_word_options(args)
    info = machine_info(args.threads)
    print(describe(info))
    network = Bundle.open(args.bundles[0], verify=False).manifest
    protocol = Protocol.of(Charset(network.charset, network.charset_test), network.config["steps"])
    words: list[LabelledWord] = []
    for folder in choose_sets(args.data, args.sets).values():
        with LmdbWords(folder) as data:
            words += [word for word in labelled(data, protocol, args.limit) if word.pixels is not None]
    if not words:
        raise UsageError("no words to read")
    rows = compared([read(folder, words, args.threads) for folder in args.bundles], [w.label for w in words], protocol)
    for row, folder in zip(rows, args.bundles):
        row["bundle"] = folder.name
    cells = [[r["bundle"], f"{r['accuracy']:.2f}", f"{r['same']:.2f}", r["right"], r["wrong"]] for r in rows]
    heads = ("bundle", f"% right of {len(words)}", "% the same word", "right only here", "wrong only here")
    print(f"\n{markdown(heads, cells)}")
    finish(args, info, {"rows": rows, "words": len(words)})
    return 0


def build_parser() -> argparse.ArgumentParser:
    parser = word_parser(PROGRAM, __doc__, _EPILOG)
    parser.add_argument(
        "--bundles", type=Path, nargs="+", required=True, metavar="DIR", help="the first is compared to"
    )
    return parser


def read(folder: Path, words: Sequence[LabelledWord], threads: int) -> list[str]:
    """The words of a bundle."""
    found: list[str] = []
    recognizer = Recognizer.load(folder, "onnxruntime", threads=threads)
    with recognizer, Progress(len(words), folder.name, "words") as bar:
        for batch in batches((word.pixels for word in words if word.pixels is not None), BATCH):
            found += [word.text for word in recognizer.read(batch)]
            bar.update(len(batch))
    return found


def compared(found: Sequence[Sequence[str]], labels: Sequence[str], protocol: Protocol) -> list[dict[str, Any]]:
    """A row for each list of words: percent right and percent the first list's; how many of its words are right where
    the first list's are not, and the other way round."""
    right = [[protocol.prediction(word) == label for word, label in zip(words, labels)] for words in found]
    return [
        {
            "accuracy": 100 * sum(ok) / len(labels),
            "same": 100 * sum(a == b for a, b in zip(words, found[0])) / len(labels),
            "right": sum(a and not b for a, b in zip(ok, right[0])),
            "wrong": sum(b and not a for a, b in zip(ok, right[0])),
        }
        for words, ok in zip(found, right)
    ]


if __name__ == "__main__":
    sys.exit(run_script(PROGRAM, main))
