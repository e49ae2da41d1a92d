"""False readings: what is read in crops without text, made, or cut from photos away from every word."""

from __future__ import annotations

import argparse
import io
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image, ImageDraw, ImageFont, ImageOps
from tqdm import tqdm

from clip4str.benchmarks.figures import accuracy, markdown, percent
from clip4str.core.batches import batches
from clip4str.core.console import Parser, run_script
from clip4str.core.errors import UsageError
from clip4str.core.machine_info import machine_info
from clip4str.core.output_files import check_output, write_json, write_whole
from clip4str.runtime import Recognizer
from clip4str.runtime.default_bundle import default_bundle
from clip4str.training.textless import unseen
from clip4str.training.textless.crops import MADE, Crop, Maker, Textless, measuring_crops
from clip4str.training.textless.photos import Photos
from clip4str.training.textless.scripts import MEASURED, script_faces

PROGRAM = "benchmarks/textless.py"
SURE = 0.5
UNSEEN: dict[str, Maker] = {
    "pattern, unseen": unseen.unseen_pattern, "figure, unseen": unseen.unseen_figure,
    "other script, unseen": unseen.unseen_script,
}  # fmt: skip
_EPILOG = """\
examples:
  python benchmarks/textless.py --photos PHOTOS --json textless.json --picture false-readings.png
  python benchmarks/textless.py --count 600

Half of the crops are pieces, away from every word, of the photos that training
does not use (a third of them, by their names); the other half is made: the kinds
that training draws, from other seeds, and kinds that it never draws. Read: any
text was answered; surely read: with a confidence over 0.5. Intervals are 95 %
(Wilson).
"""


class FalseReading(NamedTuple):
    kind: str
    text: str
    confidence: float
    picture: Image.Image


def drawable() -> tuple[dict[str, Maker], list[str]]:
    """Kinds that this machine can draw, and notes on what it lacks."""
    known = Textless()
    makers, notes = {**known.made, **UNSEEN}, known.notes
    if not script_faces(MEASURED):
        del makers["other script, unseen"]
        notes = [*notes, f"no fonts of {', '.join(MEASURED)} on this machine: no other script, unseen crops"]
    return {kind: makers[kind] for kind in (*MADE, *UNSEEN) if kind in makers}, notes


def measure(
    recognizer: Recognizer, crops: Iterator[Crop], total: int
) -> tuple[dict[str, list[tuple[bool, bool]]], list[FalseReading]]:
    """By kind, for each crop whether it was read and surely read; and all false readings, the surest first."""
    seen: dict[str, list[tuple[bool, bool]]] = {}
    false: list[FalseReading] = []
    with tqdm(total=total, unit="crop", leave=False, disable=None) as bar:
        for batch in batches(crops, recognizer.batch_size):
            words = recognizer.read([crop.picture for crop in batch])
            for (kind, picture), word in zip(batch, words):
                seen.setdefault(kind, []).append((word.text != "", word.text != "" and word.confidence > SURE))
                if word.text:
                    false.append(FalseReading(kind, word.text, float(word.confidence), picture))
            bar.update(len(batch))
    return seen, sorted(false, key=lambda reading: -reading.confidence)


def report(seen: Mapping[str, Sequence[tuple[bool, bool]]]) -> list[dict[str, Any]]:
    """A row for each kind and one for all crops: shares read and surely read, with intervals."""
    everything = [crop for kind in seen.values() for crop in kind]
    rows = []
    for kind, readings in [*seen.items(), ("all", everything)]:
        shares = {}
        for name, column in (("read", 0), ("surely_read", 1)):
            share = accuracy([crop[column] for crop in readings])
            shares[name] = {"count": share["right"], **{k: share[k] for k in ("percent", "low", "high")}}
        rows.append({"kind": kind, "crops": len(readings), **shares})
    return rows


def sheet(false: Sequence[FalseReading], across: int = 8, most: int = 96) -> Image.Image:
    """The surest false readings, the text below each crop."""
    wide, high, line = 150, 48, 84
    font = ImageFont.load_default(12)
    shown = false[:most]
    canvas = Image.new("RGB", (across * wide, line * max(1, -(-len(shown) // across))), "white")
    pen = ImageDraw.Draw(canvas)
    for k, reading in enumerate(shown):
        left, top = k % across * wide + 4, k // across * line + 4
        canvas.paste(ImageOps.contain(reading.picture, (wide - 8, high)), (left, top))
        pen.text((left, top + high + 1), f"{reading.text[:14]}  {100 * reading.confidence:.0f}", "#c0262d", font)
        pen.text((left, top + high + 14), reading.kind, "#555", font)
    return canvas


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog=PROGRAM, description=__doc__, epilog=_EPILOG,
                    formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    add = parser.add_argument
    add("--photos", type=Path, metavar="DIR", help="photos with their words' places, see training/train.py --photos")
    add("--bundle", type=Path, metavar="DIR", help="bundle to read with (default: the newest)")
    add("--count", type=int, default=5000, metavar="N", help="crops in all (default 5000)")
    add("--threads", type=int, metavar="N", help="CPU threads (default: all)")
    add("--picture", type=Path, metavar="FILE", help="draw the surest false readings (.png)")
    add("--json", type=Path, metavar="FILE", help="write all figures as JSON")
    args = parser.parse_args(argv)
    if args.count < 100:
        raise UsageError(f"--count is 100 or more, not {args.count}")
    check_output(args.json)
    check_output(args.picture, (".png",))
    recognizer = Recognizer.load(args.bundle or default_bundle(), threads=args.threads)
    photos = Photos(args.photos, measured=True) if args.photos else None
    makers, notes = drawable()
    info = machine_info(args.threads)
    seen, false = measure(recognizer, measuring_crops(photos, args.count, makers), args.count)
    rows = report(seen)
    manifest = recognizer.manifest
    print(f"{manifest.name} {manifest.precision}, {rows[-1]['crops']} crops without text\n")
    lines = [[row["kind"], row["crops"], *(percent(row[how], 2) for how in ("read", "surely_read"))] for row in rows]
    print(markdown(("", "crops", "read, %", "surely read, %"), lines))
    for note in notes:
        print(note, file=sys.stderr)
    if args.json:
        write_json(args.json, {
            "kinds": rows, "sure": SURE, "photos": len(photos) if photos else 0, "lacking": notes,
            "bundle": {"name": manifest.name, "precision": manifest.precision, "checkpoint": manifest.checkpoint},
            "machine": info,
        })  # fmt: skip
    if args.picture:
        buffer = io.BytesIO()
        sheet(false).save(buffer, "PNG", optimize=True)
        write_whole(args.picture, buffer.getvalue())
    return 0


if __name__ == "__main__":
    sys.exit(run_script(PROGRAM, main))
