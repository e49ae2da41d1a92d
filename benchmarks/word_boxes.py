"""Word boxes of real photos: lines as a detector finds them, and cut into words; and how many words are read right."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from clip4str.benchmarks.figures import markdown
from clip4str.core.console import Parser, run_script
from clip4str.core.errors import DataError, UsageError
from clip4str.core.machine_info import describe, machine_info
from clip4str.core.output_files import check_output, write_json
from clip4str.data.protocol import Protocol
from clip4str.runtime import Recognizer, load_image
from clip4str.video.detect import Detections, open_detector
from clip4str.video.frames import Frame
from clip4str.video.geometry import area, overlaps, pairs
from clip4str.video.photo import read_quads
from clip4str.video.stream import sound

PROGRAM = "benchmarks/word_boxes.py"
_EPILOG = """\
examples:
  python benchmarks/word_boxes.py --photos data/photos/IC15_train --odd
  python benchmarks/word_boxes.py --photos data/photos/IC15_train --long-side 1280 --json boxes.json

A photo NAME.jpg has its words in NAME.txt, a line each: x1,y1,...,x4,y4,text; "###"
is not to be read, and what is found there does not count (ICDAR 2015's protocol: a
word is found if a box shares half of the area that both cover).
"""
FOUND = 0.5
IGNORED = "###"


class Photo(NamedTuple):
    """quads (N, 4, 2) and texts of its words."""

    path: Path
    quads: np.ndarray
    texts: list[str]


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog=PROGRAM, description=__doc__, epilog=_EPILOG, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--photos", type=Path, required=True, metavar="DIR", help="photos and their words")
    add("--odd", action="store_true", help="every second photo alone, those that no threshold was chosen on")
    add("--long-side", type=int, default=960, metavar="N", help="pixels that are searched (default: %(default)s)")
    add("--threads", type=int, default=1, metavar="N")
    add("--bundle", type=Path, metavar="DIR", help="(default: the packaged network)")
    add("--json", type=Path, metavar="FILE", help="write the figures as JSON")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    check_output(args.json)
    photos = labelled_photos(args.photos)[1 if args.odd else 0 :: 2 if args.odd else 1]
    if not photos:
        raise UsageError(f"{args.photos}: no photos with their words beside them")
    info = machine_info(args.threads)
    print(f"{len(photos)} photos, {describe(info)}", flush=True)
    recognizer = Recognizer.load(args.bundle, threads=args.threads)
    rows = [
        measure(name, open_detector("auto", long_side=args.long_side, words=words, threads=args.threads), recognizer,
                photos)
        for name, words in (("lines as they are", False), ("cut into words", True))
    ]  # fmt: skip
    heads = ("", "boxes", "precision", "recall", "F1", "read right, of all", "of those found")
    lines = [[r["name"], r["boxes"], *(f"{r[key]:.1f} %" for key in ("precision", "recall", "f1", "right", "of_found"))]
             for r in rows]  # fmt: skip
    print(f"\n{markdown(heads, lines)}\n")
    if args.json:
        write_json(args.json, {"rows": rows, "photos": len(photos), "long_side": args.long_side, "odd": args.odd,
                               "machine": info})  # fmt: skip
    return 0


def labelled_photos(folder: Path) -> list[Photo]:
    """Raises DataError, naming the file and line of what is no word."""
    photos = []
    for path in sorted(folder.glob("*.jpg")):
        labels = path.with_suffix(".txt")
        if not labels.is_file():
            continue
        quads, texts = [], []
        for number, line in enumerate(labels.read_text(encoding="utf-8-sig").splitlines(), 1):
            parts = line.split(",", 8)
            try:
                quads.append(np.array([float(value) for value in parts[:8]], np.float32).reshape(4, 2))
                texts.append(parts[8])
            except (ValueError, IndexError):
                raise DataError(f"{labels}: line {number} is not x1,y1,...,x4,y4,text") from None
        photos.append(Photo(path, np.array(quads, np.float32).reshape(-1, 4, 2), texts))
    return photos


def measure(name: str, detector: Any, recognizer: Recognizer, photos: Sequence[Photo]) -> dict[str, Any]:
    """Percent, over all photos."""
    protocol = Protocol()
    found = boxes = words = right = 0
    for photo in photos:
        frame = Frame(np.asarray(load_image(photo.path)), 0.0)
        detected = detector.detect(frame)
        matched, counted, wanted = compared(detected, photo)
        found, boxes, words = found + len(matched), boxes + counted, words + wanted
        if matched:
            read = read_quads(recognizer, frame, detected.quads[[j for j, _ in matched]])
            right += sum(
                protocol.prediction(word.word.text) == protocol.prediction(photo.texts[i])
                for word, (_, i) in zip(read, matched)
            )
    precision, recall = 100 * found / max(1, boxes), 100 * found / max(1, words)
    return {
        "name": name, "boxes": boxes, "words": words, "precision": round(precision, 1), "recall": round(recall, 1),
        "f1": round(2 * precision * recall / max(1e-9, precision + recall), 1),
        "right": round(100 * right / max(1, words), 1), "of_found": round(100 * right / max(1, found), 1),
    }  # fmt: skip


def compared(detected: Detections, photo: Photo) -> tuple[list[tuple[int, int]], int, int]:
    """(box, word) of those found; boxes that count; words that do."""
    readable = [i for i, text in enumerate(photo.texts) if text != IGNORED]
    ignored = [i for i, text in enumerate(photo.texts) if text == IGNORED]
    usable = np.flatnonzero(sound(detected.quads)) if len(detected.quads) else np.zeros(0, int)
    quads = detected.quads[usable].reshape(-1, 4, 2)
    matched, _ = pairs(quads, photo.quads[readable].reshape(-1, 4, 2), FOUND)
    taken = {j for j, _ in matched}
    hidden = overlaps(quads, photo.quads[ignored].reshape(-1, 4, 2))
    free = [j for j in range(len(quads)) if j not in taken
            and not (hidden[j] > FOUND * max(area(quads[j]), 1e-6)).any()]  # fmt: skip
    return [(int(usable[j]), readable[i]) for j, i in matched], len(matched) + len(free), len(readable)


if __name__ == "__main__":
    sys.exit(run_script(PROGRAM, main))
