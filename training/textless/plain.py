"""Crops with nothing on them at all: one colour, gradients, noise, and what strong JPEG makes of such."""

from __future__ import annotations

import numpy as np
from PIL import Image

from .paint import BICUBIC, Size, along, as_pixels, blend, colour, field, grain, grid, jpeg, two_colours


def blank(rng: np.random.Generator, size: Size) -> np.ndarray:
    """One colour: a white page, black, anything; the light on it perhaps a little uneven."""
    u = rng.random()
    tone = np.full(3, 255.0) if u < 0.15 else rng.uniform(225, 255, 3) if u < 0.35 else colour(rng)
    if 0.35 <= u < 0.5:
        tone = rng.uniform(0, 15, 3) * (u > 0.4)
    values = np.broadcast_to(tone.astype(np.float32), (*size, 3))
    if rng.random() < 0.4:
        slope = along(rng, size)
        values = values + (rng.uniform(2, 25) * slope / (np.ptp(slope) + 1e-6))[..., None]
    pixels = as_pixels(values)
    return grain(rng, pixels, float(rng.uniform(0.5, 4))) if rng.random() < 0.4 else pixels


def gradient(rng: np.random.Generator, size: Size) -> np.ndarray:
    """One colour passing into another: in a line, around a point, in a few steps, or at an edge."""
    one, other = two_colours(rng)
    if rng.random() < 0.3:
        y, x = grid(size)
        way = np.hypot(y - rng.uniform(-0.3, 1.3) * size[0], x - rng.uniform(-0.3, 1.3) * size[1])
    else:
        way = along(rng, size)
    share = (way - way.min()) / (np.ptp(way) + 1e-6)
    u = rng.random()
    if u < 0.15:
        steps = int(rng.integers(2, 6))
        share = np.floor(share * steps) / steps
    elif u < 0.45:  # an edge, sharp or soft
        share = np.clip((share - rng.uniform(0.1, 0.9)) * rng.uniform(4, 60) + 0.5, 0, 1)
    elif u < 0.6:
        share = np.abs(2 * share - 1) ** rng.uniform(0.5, 4)
    return blend(share, one, other)


def noise(rng: np.random.Generator, size: Size) -> np.ndarray:
    """White, coarse or of many scales, coloured or grey, in some with a threshold (dirt, camouflage), in lines."""
    one, other = two_colours(rng, 10)
    u = rng.random()
    if u < 0.2:  # a sensor in the dark
        return grain(rng, as_pixels(np.broadcast_to(one, (*size, 3))), float(rng.uniform(8, 90)))
    cell = float(np.exp(rng.uniform(0, np.log(size[0]))))
    layers = range(int(rng.integers(1, 4)))
    values = sum((field(rng, size, max(1.0, cell / 2**k)) * 0.6**k for k in layers), np.float32(0))
    if u < 0.35:  # lines, as of a bad transmission
        values = values * 0.3 + rng.standard_normal((size[0], 1), np.float32)
    elif u < 0.45:
        values = values * 0.3 + rng.standard_normal((1, size[1]), np.float32)
    elif u < 0.65:
        values = 2 * np.tanh((values - rng.uniform(-1, 2)) * rng.uniform(3, 12))
    elif u < 0.72:  # salt and pepper
        values = np.where(rng.random(size) < rng.uniform(0.01, 0.3), 4 * np.sign(values), 0)
    return blend(np.clip(0.5 + values * rng.uniform(0.1, 0.5), 0, 1), one, other)


def strong_jpeg(rng: np.random.Generator, size: Size) -> np.ndarray:
    """Blocks and rings: a quality at which little else is left, enlarged in some."""
    kind = (gradient, noise, noise)[rng.integers(3)]
    shrunk = (max(8, size[0] // int(rng.integers(1, 4))), max(8, size[1] // int(rng.integers(1, 4))))
    pixels = jpeg(kind(rng, shrunk), int(rng.integers(1, 9)))
    return np.asarray(Image.fromarray(pixels).resize((size[1], size[0]), BICUBIC))
