"""Grounds, signs and letters of generated scenes."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import cv2
import numpy as np
from PIL import Image, ImageDraw, ImageFont

Random = np.random.Generator


def ground(random: Random, height: int, width: int) -> np.ndarray:
    """Something like walls, foliage and asphalt, without letters: uint8 (H, W, 3)."""
    picture = np.zeros((height, width, 3), np.float32)
    for octave in range(3, 9):
        cells = (max(2, height >> (9 - octave)), max(2, width >> (9 - octave)))
        noise = random.normal(0, 1, (*cells, 3)).astype(np.float32) * 0.5 + random.normal(0, 1, (*cells, 1))
        picture += (
            cv2.resize(noise.astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC) * 0.62**octave * 60
        )
    picture += random.uniform(60, 170, 3)
    for _ in range(40):  # windows, doors, cars seen from far
        x, y = random.integers(0, width), random.integers(0, height)
        w, h = random.integers(20, 260), random.integers(20, 200)
        shade = random.uniform(-50, 50, 3)
        picture[y : y + h, x : x + w] += shade
    return picture.clip(0, 255).astype(np.uint8)


@functools.cache
def font(path: str, size: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(path, size)


def colours(random: Random) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Of a sign and its letters, well apart."""
    while True:
        sign, ink = random.integers(0, 256, 3), random.integers(0, 256, 3)
        weights = np.array([0.299, 0.587, 0.114])
        if abs(float((sign - ink) @ weights)) > 90:
            return tuple(sign.tolist()), tuple(ink.tolist())


def sign(random: Random, lines: Sequence[Sequence[str]], face: str, height: int) -> tuple[np.ndarray, list[np.ndarray]]:
    """A sign with lines of words: uint8 (H, W, 3), and of each word, line by line, its quad (4, 2) on it.

    height: pixels of a capital letter, about.
    """
    letters = font(face, int(height * 1.4))
    back, ink = colours(random)
    margin, gap = int(height * random.uniform(0.4, 0.9)), int(height * random.uniform(0.5, 1.0))
    space = letters.getlength(" ") * random.uniform(1.0, 1.4)
    widths = [sum(letters.getlength(w) for w in line) + space * (len(line) - 1) for line in lines]
    size = (int(max(widths)) + 2 * margin, len(lines) * height + (len(lines) - 1) * gap + 2 * margin)
    picture = Image.new("RGB", size, back)
    draw = ImageDraw.Draw(picture)
    if random.random() < 0.5:
        draw.rectangle((3, 3, size[0] - 4, size[1] - 4), outline=ink, width=max(1, height // 12))
    quads = []
    for row, line in enumerate(lines):
        x = (size[0] - widths[row]) / 2
        base = margin + row * (height + gap) + height
        for word in line:
            box = draw.textbbox((x, base), word, font=letters, anchor="ls")
            draw.text((x, base), word, font=letters, fill=ink, anchor="ls")
            quads.append(np.array([box[:2], (box[2], box[1]), box[2:], (box[0], box[3])], np.float32))
            x += letters.getlength(word) + space
    return np.asarray(picture), quads
