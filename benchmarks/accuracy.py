"""clip4str eval: word accuracy of a bundle over labelled LMDB folders, by the standard protocol."""

from __future__ import annotations

import argparse
import csv
import io
import sys
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from tqdm import tqdm

from clip4str.benchmarks.error_sheet import ErrorSheet
from clip4str.benchmarks.figures import markdown
from clip4str.core.batches import batches
from clip4str.core.console import Parser, fail
from clip4str.core.errors import UsageError
from clip4str.core.machine_info import describe, machine_info
from clip4str.core.output_files import check_apart, check_output, write_json, write_whole
from clip4str.data.labelled_words import ALTERED, LabelledWord, labelled, pick_sets
from clip4str.data.protocol import Protocol, closeness
from clip4str.data.standard_sets import STANDARD, claimed_sets, name_sets
from clip4str.data.word_lmdb import LmdbWords, find_lmdb
from clip4str.runtime import Recognizer
from clip4str.runtime.read_command import add_recognizer_options, load_recognizer

_EPILOG = """\
examples:
  clip4str eval --data data/test          every set, with the newest bundle
  clip4str eval --data data/test --sets SVT CUTE80 --errors wrong.tsv
  clip4str eval --data data/test --error-sheet wrong.png
  clip4str eval --data data/test --bundle bundles/mine-fp16 --json fp16.json

A set is an LMDB folder (data.mdb inside) with the keys num-samples,
image-%09d and label-%09d. The standard sets are known by the folder's name in
any usual spelling (IIIT5K, SVT, IC13_1015, CUTE ...). Those not found are
listed; other folders are read too, and go by their path. If two folders claim
a standard set, neither is taken for it.

The standard protocol: whitespace goes, accents go (NFKD to ASCII), words of
over 25 characters are left out, then case and all but 0-9a-z goes (--cased and
--punctuation keep more), and words with nothing left are left out. Right is
what then matches exactly. An image that cannot be read counts as wrong.
A network that writes other characters than those of ASCII, or too few of them,
is compared in its own: nothing goes that it can write, but for case and what
its test charset lacks. What is left out or altered of labels is counted.
The protocol changes nothing of how a word is read; --charset-test does.
"""
_COLUMNS = ("# samples", "Accuracy", "1 - NED", "Confidence", "words/s")


@dataclass
class SetResult:
    """One data set. accuracy, ned (1 - normalised edit distance) and confidence are means in percent."""

    dataset: str
    num_samples: int = 0
    accuracy: float = 0.0
    ned: float = 0.0
    confidence: float = 0.0
    unreadable: int = 0
    seconds: float = 0.0
    mistakes: list[dict[str, Any]] = field(default_factory=list, repr=False)
    noted: Counter[str] = field(default_factory=Counter)  # labels left out, by why, and altered ones

    def to_json(self) -> dict[str, Any]:
        values = {**vars(self), "noted": dict(self.noted)}
        del values["mistakes"]
        return {k: round(v, 4) if isinstance(v, float) else v for k, v in values.items()}


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="clip4str eval",
        description="Word accuracy over labelled LMDB folders, by the standard protocol.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--data", type=Path, required=True, metavar="DIR", help="folder with LMDB sets at any depth")
    parser.add_argument("--sets", nargs="+", metavar="NAME", help="only these sets (default: all that are found)")
    parser.add_argument("--cased", action="store_true", help="capitals and small letters differ")
    parser.add_argument("--punctuation", action="store_true", help="compare punctuation too")
    parser.add_argument("--limit", type=int, metavar="N", help="only the first N words of every set")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results as JSON")
    parser.add_argument("--errors", type=Path, metavar="FILE", help="write the words read wrong, tab-separated")
    parser.add_argument("--error-sheet", type=Path, metavar="FILE", help="draw them, the surest first (.png)")
    parser.add_argument("--quiet", action="store_true", help="no progress bars")
    add_recognizer_options(parser)
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    if args.limit is not None and args.limit < 1:
        raise UsageError(f"--limit is a number of words, 1 or more, not {args.limit}")
    check_output(args.json)
    check_output(args.errors)
    check_apart({"--json": args.json, "--errors": args.errors, "--error-sheet": args.error_sheet})
    sheet = None if args.error_sheet is None else ErrorSheet(args.error_sheet)
    folders = find_lmdb(args.data)
    sets, claims = name_sets(args.data, folders), claimed_sets(args.data, folders)
    chosen = pick_sets(sets, args.sets) if args.sets else sets
    skipped = [name for name in STANDARD if name not in sets]
    for name in () if args.sets else skipped:
        if found := claims.get(name):
            names = ", ".join(other for other, folder in sets.items() if folder in found)
            print(f"{name}: claimed by {names}, so none of them is it", file=sys.stderr)
    recognizer = load_recognizer(args)
    charset = recognizer.driver.charset
    protocol = Protocol.of(charset, recognizer.driver.steps, args.cased, args.punctuation)
    info = machine_info(recognizer.backend.threads or args.threads)
    print(describe(info))
    manifest = recognizer.manifest
    print(f"bundle {manifest.name} ({manifest.precision}), captions of {len(charset.written)} characters")
    if protocol.own is not None:
        print(f"compared in the network's own characters, {len(protocol.charset)} of {len(charset.characters)}")
    results = []
    for name, folder in chosen.items():
        with LmdbWords(folder) as words:
            results.append(evaluate(recognizer, words, protocol, name, args.limit, not args.quiet, sheet))
    print_tables(results)
    missing = [] if args.sets else [name for name in skipped if name not in claims]
    if missing:
        print(f"\nnot found, skipped: {', '.join(missing)}")
    for result in results:
        _say_noted(result, protocol)
        if result.unreadable:
            print(f"{result.dataset}: {result.unreadable} images cannot be read and count as wrong", file=sys.stderr)
    if args.json:
        report = to_json(results, skipped, recognizer, protocol, info, args)
        write_json(args.json, report)
    if args.errors:
        write_errors(args.errors, results)
    if sheet is not None:
        sheet.save()
    empty = [result.dataset for result in results if not result.num_samples]
    if empty:
        fail("eval", f"{', '.join(empty)}: no label to compare, so this says nothing of the network")
    blind = [result.dataset for result in results if result.num_samples and result.unreadable == result.num_samples]
    if blind:
        fail("eval", f"{', '.join(blind)}: not one image can be read, so this says nothing of the network")
    return 2 if empty or blind else 0


def _say_noted(result: SetResult, protocol: Protocol) -> None:
    """What of a set's labels did not count, or not whole."""
    noted = Counter(result.noted)
    altered = noted.pop(ALTERED, 0)
    if noted:
        reasons = ", ".join(f"{count} {why}" for why, count in sorted(noted.items()))
        print(f"{result.dataset}: {sum(noted.values())} labels left out: {reasons}", file=sys.stderr)
    if altered:
        what = "what the network cannot write" if protocol.own else "accents and what else is not of ASCII"
        print(f"{result.dataset}: {altered} labels have {what} taken off", file=sys.stderr)


def evaluate(
    recognizer: Recognizer,
    words: LmdbWords,
    protocol: Protocol,
    name: str,
    limit: int | None = None,
    progress: bool = False,
    sheet: ErrorSheet | None = None,
) -> SetResult:
    """Read one data set. Every word's answer is the same in any batch: batches are only a matter of speed. sheet: gets
    the pictures of words read wrong."""
    result = SetResult(name)
    total = min(len(words), limit or len(words))
    began = time.perf_counter()
    with tqdm(total=total, desc=name, unit="word", disable=None if progress else True) as bar:
        for batch in batches(labelled(words, protocol, limit, result.noted), recognizer.batch_size):
            _score(recognizer, batch, protocol, result, sheet)
            bar.update((result.num_samples if limit else batch[-1].number) - bar.n)
    result.seconds = time.perf_counter() - began
    if result.num_samples:
        for measure in ("accuracy", "ned", "confidence"):
            setattr(result, measure, 100 * getattr(result, measure) / result.num_samples)
    return result


def _score(
    recognizer: Recognizer, batch: Sequence[LabelledWord], protocol: Protocol, result: SetResult,
    sheet: ErrorSheet | None,
) -> None:  # fmt: skip
    answers = iter(recognizer.read([word.pixels for word in batch if word.pixels is not None]))
    for number, pixels, label, stored in batch:
        word = next(answers) if pixels is not None else None
        text, confidence = (word.text, word.confidence) if word else ("", 0.0)
        prediction = protocol.prediction(text)
        result.num_samples += 1
        result.unreadable += word is None
        result.accuracy += prediction == label
        result.ned += closeness(prediction, label)
        result.confidence += confidence
        if prediction != label:
            result.mistakes.append(
                {"dataset": result.dataset, "number": number, "label": label, "prediction": prediction,
                 "confidence": round(confidence, 4), "label_stored": " ".join(stored.split()), "text": text}
            )  # fmt: skip
            if sheet is not None:
                sheet.add(pixels, result.mistakes[-1])


def combined(results: Sequence[SetResult], name: str, weighted: bool) -> SetResult:
    """Mean over sets, weighted by their size (the "Combined" row of published tables) or not."""
    total = SetResult(name, sum(r.num_samples for r in results), seconds=sum(r.seconds for r in results))
    counted = [r for r in results if r.num_samples]
    weights = [r.num_samples if weighted else 1 for r in counted]
    for measure in ("accuracy", "ned", "confidence"):
        values = [weight * getattr(r, measure) for weight, r in zip(weights, counted)]
        setattr(total, measure, sum(values) / max(sum(weights), 1))
    return total


def print_tables(results: Sequence[SetResult]) -> None:
    """Standard sets and other folders in a table each, as their means are not comparable."""
    for title, group in _groups(results):
        if not group:
            continue
        rows = [*group, combined(group, "Combined", True), combined(group, "Mean over sets", False)]
        lines = [
            [r.dataset, r.num_samples, *(f"{value:.2f}" for value in (r.accuracy, r.ned, r.confidence)),
             f"{r.num_samples / r.seconds if r.seconds else 0.0:.1f}"]
            for r in rows
        ]  # fmt: skip
        print(f"\n{markdown((title, *_COLUMNS), lines)}")


def _groups(results: Sequence[SetResult]) -> list[tuple[str, list[SetResult]]]:
    standard = [r for r in results if r.dataset in STANDARD]
    return [("Standard sets", standard), ("Other sets", [r for r in results if r.dataset not in STANDARD])]


def to_json(
    results: Sequence[SetResult],
    skipped: Sequence[str],
    recognizer: Recognizer,
    protocol: Protocol,
    info: dict[str, Any],
    args: argparse.Namespace,
) -> dict[str, Any]:
    """The report: measures in percent, `combined` and `mean` over the standard sets, or over all if there are none."""
    group = next(group for _, group in _groups(results) if group)
    manifest = recognizer.manifest
    return {
        "sets": [r.to_json() for r in results],
        "combined": combined(group, "Combined", True).to_json(),
        "mean": combined(group, "Mean over sets", False).to_json(),
        "skipped": list(skipped),
        "bundle": {"name": manifest.name, "precision": manifest.precision, "checkpoint": manifest.checkpoint},
        "protocol": {**protocol.to_dict(), "limit": args.limit},
        "decoding": asdict(recognizer.driver.decoding),
        "captions": recognizer.driver.charset.test,
        "machine": info,
    }


def write_errors(path: Path, results: Sequence[SetResult]) -> None:
    """Words read wrong, one a line: as compared, then as stored and as read."""
    columns = ("dataset", "number", "label", "prediction", "confidence", "label_stored", "text")
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, columns, delimiter="\t", lineterminator="\n", quoting=csv.QUOTE_NONE, escapechar="\\")
    writer.writeheader()
    for result in results:
        writer.writerows(result.mistakes)
    write_whole(path, text.getvalue())


if __name__ == "__main__":
    from clip4str.core.cli import main as run_command  # one-line errors and exit code 2, as for `clip4str eval`

    sys.exit(run_command(["eval", *sys.argv[1:]]))
