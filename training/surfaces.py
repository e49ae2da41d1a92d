"""Colours, grounds and clutter for synthetic scene text.

Scalars come from `random.Random` (ten times quicker than a numpy Generator for single values), arrays from
its `randbytes` or from banks that are always the same, so that one seed decides everything.
"""

from __future__ import annotations

import colorsys
import functools
import math
import random

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[float, float, float]
BILINEAR, BICUBIC = Image.Resampling.BILINEAR, Image.Resampling.BICUBIC
BANK_SEED = 20230523

# fmt: off
# Text and ground as signs pair them; each is jittered when drawn.
SIGNS: tuple[tuple[Colour, Colour], ...] = (
    ((245, 245, 245), (10, 90, 60)), ((245, 245, 245), (20, 60, 140)), ((245, 245, 245), (190, 25, 30)),
    ((245, 245, 245), (20, 20, 22)), ((25, 25, 25), (245, 245, 245)), ((20, 20, 20), (250, 205, 20)),
    ((250, 215, 40), (190, 20, 30)), ((200, 25, 30), (245, 240, 235)), ((20, 50, 140), (240, 240, 240)),
    ((250, 220, 60), (20, 60, 140)), ((60, 35, 20), (215, 190, 150)), ((225, 195, 120), (60, 25, 20)),
    ((245, 245, 245), (220, 110, 20)), ((15, 100, 60), (240, 240, 230)), ((215, 170, 60), (15, 15, 15)),
    ((240, 240, 240), (120, 90, 60)), ((50, 50, 55), (170, 165, 155)), ((250, 240, 90), (20, 20, 20)),
)
# Paint, brick, wood, grass, sky; few pinks.
HUES = (0.0, 0.02, 0.06, 0.09, 0.12, 0.15, 0.35, 0.45, 0.55, 0.6, 0.63, 0.66)
# fmt: on


def luminance(c: Colour) -> float:
    return 0.299 * c[0] + 0.587 * c[1] + 0.114 * c[2]


def ink(colour: Colour) -> tuple[int, int, int]:
    """As Pillow wants it: whole numbers, 0..255."""
    r, g, b = (min(255, max(0, int(c))) for c in colour)
    return r, g, b


def colour_at(rng: random.Random, target: float, saturation: float) -> Colour:
    """A colour of random hue, of about the luminance `target` (0..255)."""
    hue = rng.choice(HUES) + rng.gauss(0, 0.03) if rng.random() < 0.8 else rng.random()
    r, g, b = colorsys.hsv_to_rgb(hue % 1.0, saturation, 255.0)
    pure = luminance((r, g, b))
    scale = target / max(1.0, pure)
    if scale * max(r, g, b) <= 255:
        return r * scale, g * scale, b * scale
    # Too bright for so pure a colour: add white.
    mix = min(1.0, max(0.0, (target - pure) / max(1.0, 255 - pure)))
    return r + (255 - r) * mix, g + (255 - g) * mix, b + (255 - b) * mix


def jitter(rng: random.Random, c: Colour, amount: float) -> Colour:
    r, g, b = (min(255.0, max(0.0, v + rng.gauss(0, amount))) for v in c)
    return r, g, b


def scaled(c: Colour, factor: float) -> Colour:
    return c[0] * factor, c[1] * factor, c[2] * factor


def colour_pair(rng: random.Random) -> tuple[Colour, Colour]:
    """(text, ground): as on signs, or free with a chosen contrast, now and then a low one."""
    u = rng.random()
    if u < 0.42:
        text, ground = rng.choice(SIGNS)
        if rng.random() < 0.12:
            text, ground = ground, text
        return jitter(rng, text, 14), jitter(rng, ground, 22)
    contrast = rng.uniform(32, 65) if u < 0.55 else rng.uniform(65, 215)
    low = rng.uniform(8, 248 - contrast)
    dark_text = rng.random() < 0.45
    text_l, ground_l = (low, low + contrast) if dark_text else (low + contrast, low)
    text_s = rng.random() ** 0.8 if rng.random() < 0.35 else rng.uniform(0, 0.15)
    ground_s = rng.random() if rng.random() < 0.4 else rng.uniform(0, 0.25)
    return colour_at(rng, text_l, text_s), colour_at(rng, ground_l, ground_s)


@functools.lru_cache(maxsize=1)
def texture_bank(count: int = 72, size: int = 192) -> list[Image.Image]:
    """Grey textures about 128 (L): clouds, bricks, boards, shutters, cloth, leaves, windows."""
    g = np.random.default_rng(BANK_SEED)
    high, wide = size, 2 * size
    yy, xx = np.mgrid[0:high, 0:wide].astype(np.float32)
    bank = []
    for i in range(count):
        field = _clouds(g, wide, high)
        kind = i % 9
        if kind == 1:  # bricks or tiles
            bh, bw = g.integers(8, 40), g.integers(16, 80)
            shift = (yy // bh % 2) * (bw / 2)
            joints = (yy % bh < g.integers(1, 4)) | ((xx + shift) % bw < g.integers(1, 4))
            field = field * 0.5 + joints * g.choice([-2.5, 2.5])
        elif kind == 2:  # boards with grain
            grain = np.sin(yy * g.uniform(0.3, 1.2) + field * 2.5 + 0.02 * xx)
            field = field * 0.3 + grain - 2.0 * (yy % g.integers(10, 60) < 2)
        elif kind == 3:  # shutters, corrugated iron, blinds
            angle = g.choice([0.0, np.pi / 2, g.uniform(0, np.pi)])
            along = xx * np.cos(angle) + yy * np.sin(angle)
            field = field * 0.3 + 1.5 * np.sign(np.sin(along * g.uniform(0.1, 1.0)))
        elif kind == 4:  # dots or cloth
            f = g.uniform(0.4, 1.4)
            field = field * 0.4 + np.sin(xx * f) * np.sin(yy * f) * 1.6
        elif kind == 5:  # leaves, rubble: hard thresholds
            field = np.tanh(field * 4)
            field = field + 0.5 * np.roll(field, (3, 2), (0, 1))
        elif kind == 6:  # windows, shelves
            field = field * 0.25 + _boxes(g, wide, high)
        field = (field - field.mean()) / (field.std() + 1e-6)
        bank.append(Image.fromarray(np.clip(128 + 42 * field, 0, 255).astype(np.uint8)))
    return bank


def _clouds(g: np.random.Generator, wide: int, high: int) -> np.ndarray:
    """1/f noise from a random coarsest scale downwards, unit variance."""
    field = np.zeros((high, wide), np.float32)
    cell = 2 ** g.uniform(1.0, 5.5)
    while cell > 1.2:
        shape = (int(high / cell) + 2, int(wide / cell / g.uniform(0.6, 2.5)) + 2)
        layer = Image.fromarray(g.standard_normal(shape).astype(np.float32))
        field += np.asarray(layer.resize((wide, high), BICUBIC)) * cell ** g.uniform(0.3, 0.8)
        cell /= 2
    return field / (field.std() + 1e-6)


def _boxes(g: np.random.Generator, wide: int, high: int) -> np.ndarray:
    canvas = Image.new("L", (wide, high), 128)
    pen = ImageDraw.Draw(canvas)
    for _ in range(g.integers(10, 60)):
        x, y, w, h = (int(v) for v in g.integers((-20, -20, 5, 5), (wide, high, 120, 70)))
        pen.rectangle((x, y, x + w, y + h), fill=int(g.integers(0, 256)))
    return (np.asarray(canvas, np.float32) - 128) / 50


def smooth_field(rng: random.Random, wide: int, high: int, cells_x: int, cells_y: int) -> np.ndarray:
    """Smooth random values -1..1, [high, wide] float32."""
    small = Image.frombytes("L", (cells_x, cells_y), rng.randbytes(cells_x * cells_y))
    return (np.asarray(small.resize((wide, high), BICUBIC), np.float32) - 127.5) / 127.5


def ramp(rng: random.Random, wide: int, high: int) -> np.ndarray:
    """Linear in a random direction, mostly up or down, -1..1 along each axis; [high, wide] float32."""
    angle = rng.choice((math.pi / 2, -math.pi / 2, rng.uniform(-math.pi, math.pi)))
    x, y = np.linspace(-1, 1, wide, dtype=np.float32), np.linspace(-1, 1, high, dtype=np.float32)
    return np.float32(math.cos(angle)) * x[None] + np.float32(math.sin(angle)) * y[:, None]


def surface(rng: random.Random, wide: int, high: int, colour: Colour, busy: float) -> Image.Image:
    """An RGB picture of `colour` with gradients and texture; `busy` (0..1) scales how much."""
    if busy <= 0 or (u := rng.random()) < 0.25:
        return Image.new("RGB", (wide, high), ink(colour))
    field = np.zeros((high, wide), np.float32)
    if u < 0.65 or rng.random() < 0.3:
        field += ramp(rng, wide, high) * (rng.uniform(5, 45) * busy)
    if u > 0.45:
        cells = rng.randint(2, 9), rng.randint(2, 6)
        field += smooth_field(rng, wide, high, *cells) * (rng.uniform(5, 40) * busy)
    if u > 0.6:
        tile = rng.choice(texture_bank())
        scale = rng.uniform(0.5, 2.5)
        tw, th = min(tile.width - 1.0, wide / scale), min(tile.height - 1.0, high / scale)
        x, y = rng.uniform(0, tile.width - tw), rng.uniform(0, tile.height - th)
        texture = tile.resize((wide, high), BILINEAR, box=(x, y, x + tw, y + th))
        field += (np.asarray(texture, np.float32) - 128) * (rng.random() ** 1.5 * 0.9 * busy)
    tint = np.array([rng.uniform(0.7, 1.3) for _ in range(3)], np.float32)
    pixels = np.array(colour, np.float32) + field[..., None] * tint
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def clutter(rng: random.Random, ground: Image.Image, colour: Colour) -> None:
    """Draws edges of signs, rules, frames and big shapes over the ground; `colour` is that of the text."""
    pen = ImageDraw.Draw(ground)
    wide, high = ground.size
    for _ in range(rng.choice((1, 1, 2, 3))):
        like_text = rng.random() < 0.4
        tone = ink(jitter(rng, colour, 20) if like_text else colour_at(rng, rng.uniform(5, 250), rng.random() * 0.7))
        kind = rng.random()
        if kind < 0.35:
            _sign_edge(rng, pen, wide, high, tone)
        elif kind < 0.6:  # a rule above or below
            y = high * rng.choice((rng.uniform(0, 0.12), rng.uniform(0.88, 1)))
            tilt = rng.uniform(-0.05, 0.05) * high
            pen.line(
                [(0, y - tilt), (wide, y + tilt)],
                fill=tone,
                width=max(1, int(high * rng.uniform(0.02, 0.08))),
            )
        elif kind < 0.75:  # a frame
            inset = high * rng.uniform(0.01, 0.09)
            box = (inset, inset, max(inset + 2, wide - inset), max(inset + 2, high - inset))
            line = max(1, int(high * rng.uniform(0.02, 0.07)))
            pen.rounded_rectangle(box, radius=high * rng.uniform(0, 0.3), outline=tone, width=line)
        elif kind < 0.9:  # something big behind
            x, y, r = rng.uniform(0, wide), rng.uniform(-0.2, 1.2) * high, high * rng.uniform(0.2, 1)
            pen.ellipse((x - r, y - r * 0.7, x + r, y + r * 0.7), fill=_mixed(ground, (wide // 2, 0), tone, 0.4))
        else:
            x, top, foot = (rng.uniform(0, wide), high * rng.uniform(0.2, 2), high * rng.uniform(-1, 2))
            corners = [(x, -2), (x + top, -2), (x + foot, high + 2), (x - high * 0.4, high + 2)]
            pen.polygon(corners, fill=_mixed(ground, (0, high // 2), tone, 0.3))


def _sign_edge(rng: random.Random, pen: ImageDraw.ImageDraw, wide: int, high: int, tone: tuple[int, int, int]) -> None:
    """The edge of the sign along one side, and what lies beyond."""
    side, depth, tilt = rng.randint(0, 3), rng.uniform(0.03, 0.2) * high, rng.uniform(-0.06, 0.06) * high
    if side < 2:
        y, edge = (depth, -5) if side == 0 else (high - depth, high + 5)
        pen.polygon([(-5, edge), (wide + 5, edge), (wide + 5, y + tilt), (-5, y - tilt)], fill=tone)
    else:
        x, edge = (depth, -5) if side == 2 else (wide - depth, wide + 5)
        pen.polygon([(edge, -5), (edge, high + 5), (x - tilt, high + 5), (x + tilt, -5)], fill=tone)


def _mixed(ground: Image.Image, at: tuple[int, int], tone: tuple[int, int, int], share: float) -> tuple[int, int, int]:
    under = ground.getpixel(at)
    assert isinstance(under, tuple)
    r, g, b = ((1 - share) * u + share * t for u, t in zip(under, tone))
    return ink((r, g, b))
