#!/usr/bin/env python3
"""Renders synthetic scene-text words: for training on the fly, or into the usual LMDB of word crops.

    python training/render.py --output words.lmdb --count 100000 --words words.txt
    python training/render.py --sheet sheet.png
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageChops, ImageDraw, ImageFilter

from clip4str.training import effects
from clip4str.training.effects import Colour, Warp
from clip4str.training.fonts import Font, find_fonts, font_weights
from clip4str.training.words import WordSampler, dictionary

MAX_ASPECT_PIXELS = 400     # a long word is drawn less high rather than wider than this
PROBE = 40                  # pixels per em at which a word is measured before its size is chosen


class Renderer:
    """An endless source of word crops; the same seed and fonts give the same crops.

    words: most frequent first. extra: further words (default: the system's dictionary). labels: texts of real crops.
    height: range of the crops' heights in pixels.
    """

    def __init__(self, seed: int | str = 0, words: Sequence[str] = (), extra: Sequence[str] | None = None,
                 labels: Sequence[str] = (), fonts: Sequence[Font] | None = None, height: tuple[int, int] = (24, 64)):
        self.rng = random.Random(seed)
        self.words = WordSampler(words, self.rng, dictionary() if extra is None else extra, labels)
        self.fonts = list(find_fonts() if fonts is None else fonts)
        weights = font_weights(self.fonts)
        self._cumulative = np.cumsum(weights).tolist()
        self.height = height

    def reseed(self, seed: int | str) -> None:
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
            others = [o for o in (self.words.plain(), self.words.plain()) if font.can_draw(o)] if rng.random() < 0.3 else []
            if text.isupper():
                others = [o.upper() for o in others]
            image = render_word(text, font, rng, rng.randint(*self.height), others)
            return image, text.replace(" ", "")

    def __iter__(self):
        while True:
            yield self.sample()


def render_word(text: str, font: Font, rng: random.Random, height: int = 48, others: Sequence[str] = ()) -> np.ndarray:
    """Draws `text` as a camera might have seen it on a sign; returns uint8 RGB [about height, width, 3].

    others: words drawn above, below or beside it, most of them cut off by the edges of the crop.
    """
    spacing = _spacing(rng)
    probe = font.at(PROBE)
    left, top, right, bottom = probe.getbbox(text)
    guess = (max(4.0, right - left + spacing * PROBE * (len(text) - 1)), max(4.0, bottom - top))
    warp = effects.random_warp(rng, *guess)
    margins = [_margin(rng) for _ in range(4)]
    high, wide = _crop_size(warp, margins)
    height = max(16, min(height, int(MAX_ASPECT_PIXELS * high / wide)))
    size = _font_size(PROBE * height / high)

    mask, outline, box, stroke = _draw_text(text, font, size, spacing, rng, others)
    scale = (box[3] - box[1]) / warp.height
    warp = warp.scaled(box[2] - box[0], box[3] - box[1], scale)
    x0, y0, x1, y1 = warp.extent()
    unit = min(y1 - y0, 2.0 * (box[3] - box[1]))
    crop = (x0 - margins[0] * unit, y0 - margins[1] * unit, x1 + margins[2] * unit, y1 + margins[3] * unit)
    width = max(8, min(2 * MAX_ASPECT_PIXELS, round(height * (crop[2] - crop[0]) / (crop[3] - crop[1]))))
    centre = ((box[0] + box[2]) / 2, (box[1] + box[3]) / 2)
    mask = warp.apply(mask, centre, crop, (width, height))
    if outline is not None:
        outline = warp.apply(outline, centre, crop, (width, height))

    picture = _paint(rng, mask, outline, size)
    pixels = effects.light(rng, np.asarray(picture, np.float32))
    picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    if rng.random() < 0.03:
        _occlude(rng, picture)
    letters = height * (box[3] - box[1]) / (crop[3] - crop[1])
    return np.asarray(effects.sensor(rng, effects.blur(rng, picture, letters), letters))


def _spacing(rng: random.Random) -> float:
    """Extra space between letters, in ems."""
    u = rng.random()
    if u < 0.62:
        return 0.0
    if u < 0.72:
        return rng.uniform(-0.05, 0.0)
    return rng.uniform(0.0, 0.2) if u < 0.94 else rng.uniform(0.2, 0.7)


def _margin(rng: random.Random) -> float:
    """Space between ink and edge, in text heights; a little below 0 when the crop is too tight."""
    u = rng.random()
    return rng.uniform(-0.05, 0.03) if u < 0.22 else rng.uniform(0.02, 0.14) if u < 0.8 else rng.uniform(0.1, 0.3)


def _crop_size(warp: Warp, margins: Sequence[float]) -> tuple[float, float]:
    x0, y0, x1, y1 = warp.extent()
    unit = min(y1 - y0, 2 * warp.height)
    return y1 - y0 + (margins[1] + margins[3]) * unit, x1 - x0 + (margins[0] + margins[2]) * unit


def _font_size(wanted: float) -> int:
    """Few different sizes, so that open faces can be kept."""
    size = math.ceil(min(110.0, max(8.0, wanted)))
    return size + size % 2 if size < 32 else (size + 3) // 4 * 4 if size < 64 else (size + 7) // 8 * 8


def _draw_text(text: str, font: Font, size: int, spacing: float, rng: random.Random, others: Sequence[str]):
    """Ink of the word and its neighbours, on a canvas with room around: (mask, outline or None, box of the word, stroke)."""
    face = font.at(size)
    left, top, right, bottom = face.getbbox(text)
    extra = spacing * size
    pad = int(0.8 * size) + 8
    canvas = (int(right - left + max(0.0, extra) * len(text)) + 2 * pad, int(bottom - top) + 2 * pad)
    origin = (pad - left, pad - top)
    bold = rng.uniform(0.2, 0.06 * size) if rng.random() < 0.08 and size > 16 else 0.0
    jumpy = size * rng.uniform(0.02, 0.08) if rng.random() < 0.04 else 0.0
    places = None
    if extra or jumpy:
        places, x = [], float(origin[0])
        for char in text:
            places.append((char, (x, origin[1] + rng.uniform(-jumpy, jumpy))))
            x += face.getlength(char) + extra

    def draw(stroke: float) -> Image.Image:
        layer = Image.new("L", canvas)
        pen = ImageDraw.Draw(layer)
        for piece, at in places or [(text, origin)]:
            pen.text(at, piece, fill=255, font=face, stroke_width=stroke)
        return layer

    mask = draw(bold)
    box = mask.getbbox() or (pad, pad, canvas[0] - pad, canvas[1] - pad)
    stroke = max(1.0, size * rng.uniform(0.03, 0.1)) if rng.random() < 0.15 else 0.0
    outline = draw(bold + stroke) if stroke else None
    for other in others:
        _draw_neighbour(rng, mask, box, other, font, size)
    return mask, outline, box, stroke


def _draw_neighbour(rng: random.Random, mask: Image.Image, box: tuple[int, int, int, int], other: str, font: Font, size: int) -> None:
    pen = ImageDraw.Draw(mask)
    high = box[3] - box[1]
    side = rng.randint(0, 3)
    if side < 2:
        face = font.at(_font_size(size * rng.choice((1, 1, rng.uniform(0.5, 1.3)))))
        x = rng.uniform(box[0] - 0.5 * size, (box[0] + box[2]) / 2)
        gap = high * rng.uniform(0.06, 0.35)
        pen.text((x, box[1] - gap), other, fill=255, font=face, anchor="lb") if side == 0 else pen.text((x, box[3] + gap), other, fill=255, font=face, anchor="lt")
        return
    gap = size * rng.uniform(0.22, 0.5)
    if side == 2:
        pen.text((box[0] - gap, box[3]), other, fill=255, font=font.at(size), anchor="rs")
    else:
        pen.text((box[2] + gap, box[3]), other, fill=255, font=font.at(size), anchor="ls")


def _paint(rng: random.Random, mask: Image.Image, outline: Image.Image | None, size: int) -> Image.Image:
    """Colours the ink: ground, shadow, outline, fill, relief."""
    wide, high = mask.size
    text_colour, ground_colour = effects.colour_pair(rng)
    busy = 0.0 if rng.random() < 0.2 else rng.random() ** 1.3
    picture = effects.surface(rng, wide, high, ground_colour, busy)
    if rng.random() < 0.28:
        effects.clutter(rng, picture, text_colour)
    text_colour = _readable(text_colour, picture, mask)
    fill = effects.surface(rng, wide, high, text_colour, 0.0 if rng.random() < 0.6 else rng.uniform(0.1, 0.7))
    dark = effects.jitter(rng, tuple(0.35 * c for c in ground_colour), 8)

    step = max(1, round(size * rng.uniform(0.03, 0.1)))
    u = rng.random()
    if u < 0.14:  # shadow
        shadow = _shift(outline or mask, step * rng.choice((-1, 1, 1)), step * rng.choice((0, 1, 1)))
        if rng.random() < 0.5:
            shadow = shadow.filter(ImageFilter.GaussianBlur(step * 0.7))
        picture.paste(_ink(dark), (0, 0), shadow.point(_opacity(rng.uniform(0.4, 1.0))))
    elif u < 0.21:  # solid letters, seen from one side
        dx, dy = rng.choice((-1, 1)), rng.choice((-1, 0, 1))
        edge = _ink(effects.jitter(rng, tuple(c * rng.choice((0.5, 0.6, 1.35)) for c in text_colour), 10))
        for k in range(min(6, 2 * step), 0, -1):
            picture.paste(edge, (0, 0), _shift(mask, dx * k, dy * k))
    elif u < 0.25:  # lit from behind
        glow = mask.filter(ImageFilter.GaussianBlur(high * rng.uniform(0.04, 0.12)))
        picture.paste(_ink(effects.jitter(rng, text_colour, 40)), (0, 0), glow.point(_opacity(rng.uniform(0.5, 1.0))))
    if outline is not None:
        rim = effects.colour_at(rng, 255 - effects.luminance(text_colour), rng.random() * 0.6) if rng.random() < 0.6 else dark
        picture.paste(_ink(rim), (0, 0), outline)
        if rng.random() < 0.15:  # hollow letters
            fill = Image.new("RGB", mask.size, _ink(effects.jitter(rng, ground_colour, 15)))
    v = rng.random()
    if v < 0.12:  # paint that has faded, or worn off in places
        mask = mask.point(_opacity(rng.uniform(0.55, 0.9)))
    elif v < 0.18:
        wear = (effects.smooth_field(rng, wide, high, wide // 3 + 1, high // 3 + 1) * 220 + 200).clip(60, 255)
        mask = ImageChops.multiply(mask, Image.fromarray(wear.astype(np.uint8)))
    picture.paste(fill, (0, 0), mask)
    if rng.random() < 0.1:  # relief: one edge of each stroke catches the light
        dx, dy = rng.choice((-1, 1)), rng.choice((-1, 1))
        strength = rng.uniform(0.4, 0.9)
        for sign, tone in ((1, (250, 250, 245)), (-1, (15, 15, 15))):
            rim_mask = ImageChops.subtract(mask, _shift(mask, dx * sign, dy * sign))
            picture.paste(tone, (0, 0), rim_mask.point(_opacity(strength)))
    return picture


def _readable(colour: Colour, ground: Image.Image, mask: Image.Image) -> Colour:
    """`colour`, or black or white where it could not be told from what is really behind the letters."""
    small = np.asarray(ground.resize((16, 4), Image.Resampling.BOX), np.float32).reshape(-1, 3)
    weight = np.asarray(mask.resize((16, 4), Image.Resampling.BOX), np.float32).reshape(-1, 1) + 1
    behind = (small * weight).sum(0) / weight.sum()
    distance = np.abs(np.array(colour) - behind).max()
    if distance >= 30 + 1.5 * small.std(0).max():
        return colour
    return (15.0, 15.0, 15.0) if behind.mean() > 120 else (240.0, 240.0, 240.0)


def _ink(colour: Colour) -> tuple[int, int, int]:
    r, g, b = (min(255, max(0, int(c))) for c in colour)
    return r, g, b


def _opacity(alpha: float) -> list[int]:
    return [int(i * alpha) for i in range(256)]


def _shift(mask: Image.Image, dx: int, dy: int) -> Image.Image:
    moved = Image.new("L", mask.size)
    moved.paste(mask, (dx, dy))
    return moved


def _occlude(rng: random.Random, picture: Image.Image) -> None:
    """A wire, a pole or a leaf in front of the word."""
    pen = ImageDraw.Draw(picture)
    wide, high = picture.size
    colour = _ink(effects.colour_at(rng, rng.uniform(10, 230), rng.random() * 0.6))
    x, lean = rng.uniform(0.1, 0.9) * wide, rng.uniform(-0.6, 0.6) * high
    if rng.random() < 0.7:
        pen.line([(x - lean, -2), (x + lean, high + 2)], fill=colour, width=max(1, int(high * rng.uniform(0.03, 0.14))))
    else:
        r, y = high * rng.uniform(0.08, 0.2), rng.uniform(0, high)
        pen.ellipse((x - r, y - r, x + r, y + r), fill=colour)


if __name__ == "__main__":
    from clip4str.training.render_command import main

    raise SystemExit(main())
