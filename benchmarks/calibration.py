"""Calibrates confidence: fits a temperature on words held out of training, compares confidence with accuracy."""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from clip4str.benchmarks.calibration_figures import Figures, Fit, figures, fit_temperature, reliability
from clip4str.benchmarks.figures import markdown
from clip4str.core.batches import batches
from clip4str.core.charts import check_chart
from clip4str.core.console import Parser, run_script
from clip4str.core.errors import DataError, UsageError
from clip4str.core.machine_info import machine_info
from clip4str.core.output_files import check_output, write_json
from clip4str.data.labelled_words import choose_sets, labelled
from clip4str.data.protocol import Protocol
from clip4str.data.standard_sets import STANDARD
from clip4str.data.word_lmdb import LmdbWords
from clip4str.runtime import Recognizer
from clip4str.runtime.bundle import file_sha256
from clip4str.runtime.default_bundle import default_bundle

PROGRAM = "benchmarks/calibration.py"
_EPILOG = """\
examples:
  python benchmarks/calibration.py --data data --sets train/SVT train/IC03
      fits on the words of one half, chosen by a hash of the picture, and measures on those of the other
  python benchmarks/calibration.py --data data --fit-on train/SVT train/IC03 --measure-on SVT CUTE80 \\
      --json calibration.json --chart calibration.png --write my.safetensors
      fits on whole sets, measures on others; then: clip4str build my.safetensors

Fit on words that the network has not been trained on, and never on a test set.
Words are right or wrong by the standard protocol, see clip4str eval. Before: the
confidence as the network gives it. After: its log-odds divided by the
temperature. The bundle's own temperature is not used.

--write stores the temperature in the checkpoint that the bundle was built from,
a safetensors file, and leaves its weights alone; the next build copies it into
the manifest. ECE: expected calibration error, 15 bins.
"""


@dataclass(frozen=True)
class Words:
    """Words read from one or more sets: confidence (N,) float32 as the network gives it, right (N,) bool, first_half
    (N,) bool by a hash of the picture, and how many pictures could not be opened, which are left out."""

    confidence: np.ndarray
    right: np.ndarray
    first_half: np.ndarray
    unreadable: int = 0

    def only(self, which: np.ndarray) -> Words:
        return Words(self.confidence[which], self.right[which], self.first_half[which])

    @classmethod
    def joined(cls, parts: Sequence[Words]) -> Words:
        return cls(
            np.concatenate([part.confidence for part in parts]),
            np.concatenate([part.right for part in parts]),
            np.concatenate([part.first_half for part in parts]),
            sum(part.unreadable for part in parts),
        )


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=PROGRAM, description=__doc__, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, nargs="+", required=True, metavar="DIR", help="folders with LMDB sets at any depth")
    add("--sets", nargs="+", metavar="NAME", help="sets to fit on one half of, and to measure on the other")
    add("--fit-on", nargs="+", metavar="NAME", help="sets to fit on whole; with --measure-on")
    add("--measure-on", nargs="+", metavar="NAME", help="sets to measure on whole; with --fit-on")
    add("--cased", action="store_true", help="capitals and small letters differ")
    add("--punctuation", action="store_true", help="compare punctuation too")
    add("--limit", type=int, metavar="N", help="only the first N words of every set")
    add("--bundle", type=Path, metavar="DIR", help="bundle, or checkpoint for torch, to read with (default: newest)")
    add("--threads", type=int, metavar="N", help="CPU threads (default: all this process may use)")
    add("--json", type=Path, metavar="FILE", help="write all figures as JSON")
    add("--chart", type=Path, metavar="FILE", help="draw reliability before and after (.png, .svg, .pdf)")
    add("--write", type=Path, metavar="CHECKPOINT", help="store the temperature in the checkpoint (.safetensors)")
    add("--quiet", action="store_true", help="no progress bars")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if args.limit is not None and args.limit < 1:
        raise UsageError(f"--limit is a number of words, 1 or more, not {args.limit}")
    to_fit, to_measure = _sets(args)
    check_output(args.json)
    check_chart(args.chart)
    recognizer = Recognizer.load(args.bundle or default_bundle(), threads=args.threads)
    protocol = Protocol.of(recognizer.driver.charset, recognizer.driver.steps, args.cased, args.punctuation)
    if args.write is not None:
        _check_checkpoint(args.write, recognizer)
    read = {
        name: read_words(recognizer, folder, protocol, name, args.limit, not args.quiet)
        for name, folder in {**to_fit, **to_measure}.items()
    }
    fitted, measured = {name: read[name] for name in to_fit}, {name: read[name] for name in to_measure}
    if args.sets:
        fitted = {name: words.only(words.first_half) for name, words in fitted.items()}
        measured = {name: words.only(~words.first_half) for name, words in measured.items()}
    report = calibrate(fitted, measured)
    manifest = recognizer.manifest
    print(f"bundle {manifest.name} ({manifest.precision})")
    print_report(report)
    for name, words in read.items():
        if words.unreadable:
            print(f"{name}: {words.unreadable} images cannot be read and are left out", file=sys.stderr)
    if args.json:
        write_json(args.json, {
            **report, "halves": bool(args.sets), "limit": args.limit,
            "bundle": {"name": manifest.name, "precision": manifest.precision, "checkpoint": manifest.checkpoint,
                       "temperature": manifest.temperature},
            "protocol": protocol.to_dict(), "machine": machine_info(args.threads),
        })  # fmt: skip
    if args.chart:
        from clip4str.benchmarks.calibration_chart import save_chart

        whole = report["measured"]["all"]
        save_chart(whole, report["temperature"], args.chart, manifest.name, ", ".join(to_measure))
    if args.write:
        from clip4str.model.checkpoint import write_temperature

        write_temperature(args.write, report["temperature"])
        print(f"{args.write} has it now; clip4str build {args.write} carries it into a bundle")
    return 0


def _sets(args: argparse.Namespace) -> tuple[dict[str, Path], dict[str, Path]]:
    """Sets to fit and to measure on. Raises UsageError."""
    if bool(args.sets) == bool(args.fit_on or args.measure_on) or bool(args.fit_on) != bool(args.measure_on):
        raise UsageError("name sets: either --sets, or both --fit-on and --measure-on")
    fit = choose_sets(args.data, args.sets or args.fit_on)
    measure = choose_sets(args.data, args.sets or args.measure_on)
    if tests := [name for name in fit if name in STANDARD]:
        raise UsageError(
            f"{tests[0]} is the name of a test set, which nothing may be fitted on; if {fit[tests[0]]} is a training "
            "split, give a --data above a folder called train"
        )
    if args.fit_on and (both := fit.keys() & measure.keys()):
        raise UsageError(f"{min(both)}: fitted and measured on; --sets keeps the halves of a set apart")
    return fit, measure


def _check_checkpoint(path: Path, recognizer: Recognizer) -> None:
    """Raises UsageError unless the bundle was built from this very file."""
    manifest = recognizer.manifest
    if not path.is_file():
        raise UsageError(f"{path}: no such checkpoint")
    if path.suffix != ".safetensors":
        raise UsageError(f"{path}: only a .safetensors checkpoint has a place for a temperature")
    if file_sha256(path) != manifest.checkpoint.get("sha256"):
        raise UsageError(
            f"{path}: not the checkpoint that {manifest.name} was built from ({manifest.checkpoint.get('name')}), or "
            f"changed since; build its bundle first: clip4str build {path}"
        )


def read_words(
    recognizer: Recognizer,
    folder: Path,
    protocol: Protocol,
    name: str,
    limit: int | None = None,
    progress: bool = False,
) -> Words:
    """One set, in its order. Raises DataError if it has no word that counts, or if a confidence is NaN."""
    confidence, right, first_half, unreadable = [], [], [], 0
    with LmdbWords(folder) as data:
        bar = tqdm(labelled(data, protocol, limit), desc=name, unit="word", disable=None if progress else True)
        for batch in batches(bar, recognizer.batch_size):
            opened = [(word.pixels, word.label) for word in batch if word.pixels is not None]
            unreadable += len(batch) - len(opened)
            if not opened:
                continue
            reading = recognizer.reading(recognizer.prepare([pixels for pixels, _ in opened]))
            if np.isnan(reading.confidence).any():
                raise DataError(f"{folder}: the network's confidence in a word of it is not a number")
            confidence.append(reading.confidence)
            for ids, (pixels, label) in zip(reading.ids, opened):
                right.append(protocol.prediction(recognizer.driver.charset.decode(ids)) == label)
                first_half.append(hashlib.sha256(pixels.tobytes()).digest()[0] < 128)
    if not right:
        raise DataError(f"{folder}: no words in it that count and can be read")
    return Words(np.concatenate(confidence), np.array(right), np.array(first_half), unreadable)


def calibrate(fitted: dict[str, Words], measured: dict[str, Words]) -> dict[str, Any]:
    """The report, by set and over all: the temperature fitted on some words, and figures before and after on others.

    Raises DataError where there is nothing to fit or to measure.
    """
    for name, words in {**fitted, **measured}.items():
        if not len(words.right):
            raise DataError(f"{name}: too few words to halve")
    base, other = Words.joined(list(fitted.values())), Words.joined(list(measured.values()))
    fit = fit_temperature(base.confidence, base.right)
    whole = {
        **_compared(other, fit),
        "bins": {side: reliability(other.confidence, other.right, t) for side, t in _sides(fit).items()},
    }
    return {
        **asdict(fit),
        "fitted": {"sets": {name: len(words.right) for name, words in fitted.items()}, **_compared(base, fit)},
        "measured": {"sets": {name: _compared(words, fit) for name, words in measured.items()}, "all": whole},
    }


def _sides(fit: Fit) -> dict[str, float]:
    return {"before": 1.0, "after": fit.temperature}


def _compared(words: Words, fit: Fit) -> dict[str, Any]:
    return {side: figures(words.confidence, words.right, t).to_json() for side, t in _sides(fit).items()}


def print_report(report: dict[str, Any]) -> None:
    """The temperature, and a Markdown table of figures before -> after."""
    fitted, measured = report["fitted"], report["measured"]
    print(f"temperature {report['temperature']:.3f} ({report['low']:.3f} to {report['high']:.3f}), fitted on "
          f"{fitted['before']['words']} words of {', '.join(fitted['sets'])}\n")  # fmt: skip
    rows = {**measured["sets"], "all measured": measured["all"], "fitted on": fitted}
    lines = []
    for name, row in rows.items():
        before, after = Figures(**row["before"]), Figures(**row["after"])
        cells = [f"{100 * getattr(before, key):.1f} -> {100 * getattr(after, key):.1f}"
                 for key in ("confidence", "ece", "ece_adaptive", "ece_of_chance")]  # fmt: skip
        cells += [f"{getattr(before, key):.3f} -> {getattr(after, key):.3f}" for key in ("brier", "nll")]
        lines.append([name, before.words, f"{100 * before.accuracy:.1f}", *cells])
    heads = ("", "words", "right, %", "confidence, %", "ECE, %", "adaptive, %", "by chance, %", "Brier", "log loss")
    print(markdown(heads, lines))


if __name__ == "__main__":
    sys.exit(run_script(PROGRAM, main))
