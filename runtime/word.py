"""One image's answer, and why it may be none."""

from __future__ import annotations

from dataclasses import dataclass, field

LARGE = 2_000_000  # pixels: crops of words have thousands, photos of a street millions
WIDEST, TALLEST = 30, 15  # times as wide as high, and the other way round
LIKELY, UNLIKELY = 0.9, 0.05  # confidences: above, the answer is believed all the same; below, it is doubted by itself


@dataclass(frozen=True)
class Word:
    """One image's answer.

    confidence: product of the probabilities of its characters and of its end, calibrated by the bundle's temperature
    (see core.calibration; 1: the product itself), also of an empty word. char_confidences: one per character, the
    network's own, never calibrated. hint: in words, why this may be no answer, where that shows; else "". turns:
    quarter turns, counter-clockwise, with which a quad was read: see Recognizer.read_quads.
    """

    text: str
    confidence: float
    char_confidences: tuple[float, ...]
    hint: str = field(default="", compare=False)
    turns: int = field(default=0, compare=False)


def hint_of(text: str, confidence: float, shape: tuple[int, int] | None = None) -> str:
    """Word.hint. shape: the width and height of the image, None where only its pixels are known."""
    if shape and (confidence < LIKELY or not text):
        width, height = shape
        if width > WIDEST * height or height > TALLEST * width:
            return f"{width}x{height} pixels are far from a word's shape; an image should be a crop of one word"
        if width * height > LARGE:
            return f"{width}x{height} pixels look like a photo, not a word crop; cut the word out first"
    if confidence < UNLIKELY:
        return f"confidence {confidence:.1%}: probably wrong; an image should be a crop of one legible word"
    return ""
