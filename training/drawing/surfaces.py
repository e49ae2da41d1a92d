"""What words stand on: colours as signs pair them, and a bank of textures that is always the same."""

from __future__ import annotations

import functools

import numpy as np
from PIL import Image, ImageDraw

Colour = tuple[float, float, float]
BICUBIC = Image.Resampling.BICUBIC
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
