"""Pieces of photographs away from every word in them, readable or not.

A photo is NAME.jpg beside NAME.txt, a line for each word: x1,y1,...,x4,y4,text (the layout of ICDAR 2015's incidental
scene text). Words marked ### are kept away from, too, but no example of what cannot be read: of many one can.
"""

from __future__ import annotations

import functools
import os
from pathlib import Path

import numpy as np
from PIL import Image

from clip4str.core.errors import DataError, ImageError
from clip4str.data.word_lmdb import fraction
from clip4str.runtime.images import load_image

UNLABELLED = Path(__file__).with_name("unlabelled.tsv")
SUFFIXES = (".jpg", ".jpeg", ".png")
LEARNED = 2 / 3  # share of the photos that are learned from; the others only measure
LARGEST = 64  # pixels of height kept
PLAIN = 0.35  # chance that a piece with next to nothing in it is kept: half of all are walls, sky and shadow
SAME = 128  # consecutive crops from one photo, which is decoded once for them


class Photos:
    """Photos below a folder, in one of two parts by a hash of their names.

    words: boxes around the words of each photo: left, top, right, bottom, [n, 4]; those of its list, and where
    unlabelled_text.py found more (unlabelled.tsv; unlabelled=False: without). Raises DataError if there is no photo,
    one is no picture, or its list is not as above.
    """

    def __init__(self, folder: str | os.PathLike[str], measured: bool = False, unlabelled: bool = True) -> None:
        paths = sorted(p for p in Path(folder).rglob("*") if p.suffix.lower() in SUFFIXES)
        if not paths:
            raise DataError(f"{folder}: no photo (.jpg or .png with a .txt beside it) in it or below")
        self.paths = [path for path in paths if (fraction(os.fsencode(path.name)) >= LEARNED) == measured]
        if not self.paths:
            raise DataError(f"{folder}: none of its {len(paths)} photos falls into the part to use; add more")
        more = _unlabelled() if unlabelled else {}
        self.words = [
            np.concatenate((_read_words(path.with_suffix(".txt")), more.get(path.name, np.empty((0, 4)))))
            for path in self.paths
        ]

    def __len__(self) -> int:
        return len(self.paths)

    def piece(self, rng: np.random.Generator, number: int) -> np.ndarray | None:
        """A piece without a word for crop `number`: uint8 (H, W, 3), H at most 64; None if none was found."""
        index = number // SAME % len(self)
        photo, boxes = _photo(self.paths[index]), self.words[index]
        for _ in range(20):
            high = float(np.exp(rng.uniform(np.log(12), np.log(photo.height / 3))))
            wide = min(high * float(np.exp(rng.normal(0.9, 0.6))), 8 * high, photo.width - 1.0)
            left, top = rng.uniform(0, photo.width - wide), rng.uniform(0, photo.height - high)
            margin = 4 + 0.25 * high
            clear = (boxes[:, 2] < left - margin) | (boxes[:, 0] > left + wide + margin)
            clear |= (boxes[:, 3] < top - margin) | (boxes[:, 1] > top + high + margin)
            if wide >= 6 and clear.all():
                pixels = _cut(photo, (left, top, left + wide, top + high))
                if rng.random() < PLAIN or pixels.std() > 20:
                    return pixels
        return None


@functools.lru_cache(maxsize=4)
def _photo(path: Path) -> Image.Image:
    try:
        picture = load_image(path)
    except ImageError as error:
        raise DataError(str(error)) from None
    if min(picture.size) < 40:
        raise DataError(f"{path}: {picture.width}x{picture.height} pixels; photos have 40 a side")
    return picture


def _cut(photo: Image.Image, box: tuple[float, ...]) -> np.ndarray:
    box = (max(0.0, box[0]), max(0.0, box[1]), min(float(photo.width), box[2]), min(float(photo.height), box[3]))
    high = max(2, min(LARGEST, round(box[3] - box[1])))
    wide = max(2, round((box[2] - box[0]) * high / (box[3] - box[1])))
    return np.asarray(photo.resize((wide, high), Image.Resampling.BICUBIC, box=box, reducing_gap=2))


def _read_words(path: Path) -> np.ndarray:
    """Boxes around all words: left, top, right, bottom, [n, 4]."""
    boxes = []
    try:
        rows = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read as a list of words ({error})") from None
    for row in filter(None, rows):
        parts = row.split(",", 8)
        try:
            corners = np.array([float(part) for part in parts[:8]]).reshape(4, 2)
        except ValueError:
            corners = np.full((4, 2), np.nan)
        if len(parts) < 9 or not np.isfinite(corners).all():
            raise DataError(f"{path}: {row[:60]!r} is not x1,y1,...,x4,y4,text")
        boxes.append((*corners.min(0), *corners.max(0)))
    return np.array(boxes).reshape(-1, 4)


@functools.lru_cache(maxsize=1)
def _unlabelled() -> dict[str, np.ndarray]:
    """By photo, boxes of text that its list does not name."""
    found: dict[str, list[list[float]]] = {}
    for row in UNLABELLED.read_text(encoding="utf-8").splitlines()[1:]:
        name, *box = row.split("\t")
        found.setdefault(name, []).append([float(v) for v in box])
    return {name: np.array(boxes) for name, boxes in found.items()}
