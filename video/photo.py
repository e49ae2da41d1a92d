"""Words of single photos: the detector and the recogniser, without time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from clip4str.core.rectify import TALL, rectified
from clip4str.runtime import Recognizer, Word

from .detect import Detector
from .detect.contract import checked
from .frames import Frame
from .geometry import sound

UNREAD = Word("", 0.0, ())  # where the network has no numbers for a crop


class PhotoWord(NamedTuple):
    """quad (4, 2) float32: pixels of the word's top-left, top-right, bottom-right and bottom-left corner, as it is
    read. score: the detector's; label: its class, "" for none."""

    word: Word
    quad: np.ndarray
    score: float
    label: str = ""


def read_photo(recognizer: Recognizer, detector: Detector, pixels: np.ndarray, least: float = 0.0) -> list[PhotoWord]:
    """Words of a photo, uint8 (H, W, 3) RGB, from top to bottom and left to right, those that are blank or of less
    confidence than `least` left out. Raises ImageError."""
    frame = Frame(pixels, 0.0)
    found = checked(detector.detect(frame), type(detector).__name__)
    middle, size = found.quads.mean(1), np.array(frame.size[::-1])
    good = np.flatnonzero(sound(found.quads) & (middle > 0).all(-1) & (middle < size).all(-1))
    quads = found.quads[good]
    words = read_quads(recognizer, frame, quads)
    read = [
        PhotoWord(word, turned(quads[i], turns), float(found.scores[good[i]]),
                  found.labels[good[i]] if found.labels else "")
        for i, (word, turns, _) in enumerate(words) if word.text and word.confidence >= least
    ]  # fmt: skip
    return [read[i] for i in reading_order([word.quad for word in read])]


class Read(NamedTuple):
    """turns: quarter turns, counter-clockwise, with which the crop reads best. crop: it, turned; uint8 (h, w, 3)."""

    word: Word
    turns: int
    crop: np.ndarray


def read_quads(recognizer: Recognizer, frame: Frame, quads: np.ndarray) -> list[Read]:
    return read_crops(recognizer, list(rectified(frame.pixels, quads, **frame.colour)))


def read_crops(recognizer: Recognizer, crops: Sequence[np.ndarray]) -> list[Read]:
    """All in as few batches as there can be. Tall ones are also read turned by a quarter, either way, and kept as they
    read best."""
    ways = [(0,) if crop.shape[0] < TALL * crop.shape[1] else (0, 1, 3) for crop in crops]
    asked = [np.ascontiguousarray(np.rot90(crop, turns)) for crop, these in zip(crops, ways) for turns in these]
    words = iter(zip((word or UNREAD for word in recognizer.read(asked, on_error="skip")), asked))
    best = []
    for these in ways:
        answers = [(turns, *next(words)) for turns in these]
        turns, word, crop = max(answers, key=lambda answer: answer[1].confidence)
        best.append(Read(word, turns, crop))
    return best


def turned(quad: np.ndarray, turns: int) -> np.ndarray:
    """The quad of a crop that was turned by so many quarters, counter-clockwise: its new top-left corner first."""
    return np.roll(quad, -turns, axis=0)


def reading_order(quads: Sequence[np.ndarray]) -> list[int]:
    """Line by line: what overlaps by half its height with the first of a line is in it."""
    left = sorted(range(len(quads)), key=lambda i: quads[i][:, 1].mean())
    order: list[int] = []
    while left:
        top, bottom = quads[left[0]][:, 1].min(), quads[left[0]][:, 1].max()
        line = [i for i in left if top <= quads[i][:, 1].mean() <= bottom]
        order += sorted(line, key=lambda i: quads[i][:, 0].min())
        left = [i for i in left if i not in line]
    return order
