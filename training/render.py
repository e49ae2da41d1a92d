#!/usr/bin/env python3
"""Renders synthetic scene-text words: for training on the fly, or into the usual LMDB of word crops.

    python training/render.py --output words.lmdb --count 100000 --words words.txt
    python training/render.py --sheet sheet.png

The letters are drawn flat, at about the size they will have, warped once, coloured, and photographed.
"""

from __future__ import annotations

import itertools
import math
import random
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from clip4str.training.camera import photograph
from clip4str.training.fonts import Font, find_fonts, font_weights
from clip4str.training.paint import paint
from clip4str.training.warp import Warp, random_warp
from clip4str.training.words import WordSampler, dictionary

LONGEST = 400  # pixels: a longer word is drawn less high rather than wider
PROBE = 40  # pixels per em at which a word is measured before its size is chosen


class Renderer:
    """An endless source of word crops; the same seed, words and fonts give the same crops.

    words: most frequent first. extra: further words (default: the system's dictionary). labels: texts of real
    crops. fonts: default all that `find_fonts` finds. height: range of the crops' heights in pixels.
    Raises NoFontsError when the machine has no usable font.
    """

    def __init__(
        self,
        seed: int | str = 0,
        words: Sequence[str] = (),
        extra: Sequence[str] | None = None,
        labels: Sequence[str] = (),
        fonts: Sequence[Font] | None = None,
        height: tuple[int, int] = (24, 64),
    ):
        self.rng = random.Random(seed)
        self.words = WordSampler(words, self.rng, dictionary() if extra is None else extra, labels)
        self.fonts = list(find_fonts() if fonts is None else fonts)
        self.height = height
        self._cumulative = list(itertools.accumulate(font_weights(self.fonts)))

    def reseed(self, seed: int | str) -> None:
        """Start over from another seed."""
        self.rng.seed(seed)

    def sample(self) -> tuple[np.ndarray, str]:
        """One crop, uint8 RGB [height, width, 3], and its label: 1 to 25 of the 94 characters, case kept."""
        rng = self.rng
        while True:
            text = self.words.sample()
            font = rng.choices(self.fonts, cum_weights=self._cumulative)[0]
            if font.unicase:
                text = text.upper()  # the label says what the picture shows
            if not font.can_draw(text):
                continue
            near = [self.words.plain(), self.words.plain()] if rng.random() < 0.3 else []
            others = [word.upper() if text.isupper() else word for word in near if font.can_draw(word)]
            return render_word(text, font, rng, rng.randint(*self.height), others), text.replace(" ", "")

    def __iter__(self) -> Iterator[tuple[np.ndarray, str]]:
        while True:
            yield self.sample()


def render_word(text: str, font: Font, rng: random.Random, height: int = 48, others: Sequence[str] = ()) -> np.ndarray:
    """Draws `text` as a camera might have seen it on a sign.

    others: words drawn above, below or beside it, most of them cut off by the edges of the crop.
    Returns uint8 RGB [height, width, 3] (a long word less high than asked, at least 16 pixels).
    """
    spacing = _spacing(rng)
    probe = tuple(v / PROBE for v in font.at(PROBE).getbbox(text))  # left, top, right, bottom in ems
    guess = (max(0.1, probe[2] - probe[0] + spacing * (len(text) - 1)), max(0.1, probe[3] - probe[1]))
    warp = random_warp(rng, *guess)
    margins = [_margin(rng) for _ in range(4)]
    x0, y0, x1, y1 = _crop(warp, margins)
    height = max(16, min(height, int(LONGEST * (y1 - y0) / (x1 - x0))))
    size = _font_size(height / (y1 - y0))

    letters = _draw_letters(text, font, size, probe, spacing, rng)
    left, top, right, bottom = letters.box
    for other in others:
        _draw_neighbour(rng, letters, other, font, size)
    warp = warp.scaled(right - left, bottom - top, (bottom - top) / warp.height)
    crop = _crop(warp, margins)
    shape = (max(8, min(2 * LONGEST, round(height * (crop[2] - crop[0]) / (crop[3] - crop[1])))), height)
    centre = ((left + right) / 2, (top + bottom) / 2)
    mask = warp.apply(letters.mask, centre, crop, shape)
    outline = letters.outline and warp.apply(letters.outline, centre, crop, shape)
    picture = paint(rng, mask, outline, size)
    return np.asarray(photograph(rng, picture, height * (bottom - top) / (crop[3] - crop[1])))


def _spacing(rng: random.Random) -> float:
    """Extra space between letters, in ems."""
    u = rng.random()
    if u < 0.66:
        return 0.0
    if u < 0.76:
        return rng.uniform(-0.05, 0.0)
    return rng.uniform(0.0, 0.2) if u < 0.95 else rng.uniform(0.2, 0.6)


def _margin(rng: random.Random) -> float:
    """Space between ink and edge, in text heights; a little below 0 when the crop is too tight."""
    u = rng.random()
    return rng.uniform(-0.05, 0.03) if u < 0.22 else rng.uniform(0.02, 0.14) if u < 0.8 else rng.uniform(0.1, 0.3)


def _crop(warp: Warp, margins: Sequence[float]) -> tuple[float, float, float, float]:
    """The part of the warped plane that the crop shows: left, top, right, bottom."""
    x0, y0, x1, y1 = warp.extent()
    unit = min(y1 - y0, 2 * warp.height)
    left, top, right, bottom = (m * unit for m in margins)
    return x0 - left, y0 - top, x1 + right, y1 + bottom


def _font_size(wanted: float) -> int:
    """Pixels per em, of few different values, so that open faces can be kept."""
    size = math.ceil(min(110.0, max(8.0, wanted)))
    step = 2 if size < 32 else 4 if size < 64 else 8
    return -(-size // step) * step


class _Letters(NamedTuple):
    mask: Image.Image  # ink, L, with room around the word
    outline: Image.Image | None  # ink and a rim around it
    box: tuple[int, int, int, int]  # the word's ink within the mask


def _draw_letters(
    text: str, font: Font, size: int, probe: Sequence[float], spacing: float, rng: random.Random
) -> _Letters:
    face = font.at(size)
    left, top, right, bottom = (v * size for v in probe)
    pad = int(0.8 * size) + 8
    extra = spacing * size
    canvas = (int(right - left + max(0.0, extra) * len(text)) + 2 * pad, int(bottom - top) + 2 * pad)
    x, y = pad - left, pad - top
    bold = rng.uniform(0.2, 0.06 * size) if size > 16 and rng.random() < 0.08 else 0.0
    jumpy = size * rng.uniform(0.02, 0.08) if rng.random() < 0.04 else 0.0
    pieces = [(text, (x, y))]
    if extra or jumpy:
        pieces = []
        for char in text:
            pieces.append((char, (x, y + rng.uniform(-jumpy, jumpy))))
            x += face.getlength(char) + extra

    def draw(stroke: float) -> Image.Image:
        layer = Image.new("L", canvas)
        pen = ImageDraw.Draw(layer)
        for piece, at in pieces:
            pen.text(at, piece, fill=255, font=face, stroke_width=stroke)
        return layer

    mask = draw(bold)
    box = mask.getbbox() or (pad, pad, canvas[0] - pad, canvas[1] - pad)
    outline = draw(bold + max(1.0, size * rng.uniform(0.03, 0.1))) if rng.random() < 0.15 else None
    return _Letters(mask, outline, box)


def _draw_neighbour(rng: random.Random, letters: _Letters, other: str, font: Font, size: int) -> None:
    """Adds a word of a line above or below, or the next word of the same line."""
    pen = ImageDraw.Draw(letters.mask)
    left, top, right, bottom = letters.box
    side = rng.randint(0, 3)
    if side < 2:
        face = font.at(_font_size(size * rng.choice((1, 1, rng.uniform(0.5, 1.3)))))
        x, gap = rng.uniform(left - 0.5 * size, (left + right) / 2), (bottom - top) * rng.uniform(0.06, 0.35)
        place, anchor = ((x, top - gap), "lb") if side == 0 else ((x, bottom + gap), "lt")
    else:
        face, gap = font.at(size), size * rng.uniform(0.22, 0.5)
        place, anchor = ((left - gap, bottom), "rs") if side == 2 else ((right + gap, bottom), "ls")
    pen.text(place, other, fill=255, font=face, anchor=anchor)


if __name__ == "__main__":
    from clip4str.training.render_command import main

    raise SystemExit(main())
