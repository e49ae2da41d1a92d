"""What a recogniser reads well and what badly: drawn words with one difficulty at a time, counted and pictured."""

from __future__ import annotations

import argparse
import random
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from clip4str.benchmarks.figures import accuracy, markdown
from clip4str.benchmarks.word_sheet import Read, plain, save, sheet
from clip4str.core.console import Parser, run_script
from clip4str.core.errors import DataError, UsageError
from clip4str.core.machine_info import machine_info
from clip4str.core.output_files import check_output, write_json
from clip4str.runtime import Recognizer
from clip4str.runtime.default_bundle import default_bundle
from clip4str.training.drawing.difficult_words import Pen, Picture, draw_rows
from clip4str.training.words import WordSampler, dictionary, read_words

PROGRAM = "benchmarks/strengths.py"
_EPILOG = """\
examples:
  clip4str atlas --output atlas.safetensors
  python benchmarks/strengths.py --atlas atlas.safetensors --picture strengths.png

Words are drawn plainly, dark on light, in typefaces of the atlas; each row then
has one difficulty. Exact: with case and punctuation. Plain: 0-9a-z only.
Drawn words compare difficulties; they say nothing about accuracy on real
words, for which see clip4str eval.
"""


def measure(recognizer: Recognizer, rows: dict[str, list[tuple[Picture, str]]]) -> list[dict[str, Any]]:
    report = []
    for name, drawn in rows.items():
        read = recognizer.read([pixels for pixels, _ in drawn])
        exact = [word.text == text for word, (_, text) in zip(read, drawn)]
        folded = [plain(word.text) == plain(text) for word, (_, text) in zip(read, drawn)]
        examples = [{"text": text, "read": word.text, "confidence": round(float(word.confidence), 3)}
                    for word, (_, text) in zip(read, drawn)]  # fmt: skip
        report.append({"name": name, "exact": accuracy(exact), "plain": accuracy(folded), "examples": examples})
    return report


def picture(
    report: Sequence[dict[str, Any]], rows: dict[str, list[tuple[Picture, str]]], across: int = 6
) -> Image.Image:
    """A row of examples for each difficulty: the first ones, right or wrong."""
    lines = []
    for row in report:
        seen = list(zip(rows[row["name"]], row["examples"]))[:across]
        crops = [Read(Image.fromarray(pixels), e["text"], e["read"], e["confidence"]) for (pixels, _), e in seen]
        right = f"right {row['plain']['percent']:.0f} %, exactly {row['exact']['percent']:.0f} %"
        lines.append((row["name"], right, crops))
    return sheet(lines)


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog=PROGRAM, description=__doc__, epilog=_EPILOG,
                    formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    add = parser.add_argument
    add("--atlas", type=Path, required=True, metavar="FILE", help="glyph atlas, made by clip4str atlas")
    add("--bundle", type=Path, metavar="DIR", help="bundle to read with (default: the newest)")
    add("--words", type=Path, metavar="FILE", help="word list (default: the system's dictionary, or a few words)")
    add("--count", type=int, default=200, metavar="N", help="words of each kind (default: 200)")
    add("--seed", type=int, default=0)
    add("--picture", type=Path, metavar="FILE", help="draw examples of each kind (.png)")
    add("--json", type=Path, metavar="FILE", help="write all figures as JSON")
    args = parser.parse_args(argv)
    if args.count < 1:
        raise UsageError(f"--count is 1 or more, not {args.count}")
    check_output(args.json)
    check_output(args.picture, (".png",))
    recognizer = Recognizer.load(args.bundle or default_bundle())
    try:
        listed = read_words(args.words) if args.words else dictionary()
    except OSError as error:
        raise DataError(f"{args.words}: cannot be read ({error.strerror})") from None
    rows = draw_rows(Pen(args.atlas), WordSampler(listed, random.Random(0)), args.count, args.seed)
    report = measure(recognizer, rows)
    print(f"{recognizer.manifest.name} {recognizer.manifest.precision}, {args.count} words of each kind\n")
    lines = [[row["name"], *(f"{row[how]['percent']:.1f}" for how in ("plain", "exact"))] for row in report]
    print(markdown(("", "plain, %", "exact, %"), lines))
    if args.json:
        rest = [{key: value for key, value in row.items() if key != "examples"} for row in report]
        write_json(args.json, {"kinds": rest, "count": args.count, "seed": args.seed, "machine": machine_info()})
    if args.picture:
        save(picture(report, rows), args.picture)
    return 0


if __name__ == "__main__":
    sys.exit(run_script(PROGRAM, main))
