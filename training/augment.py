"""Cheap distortions of word crops, fast enough for a CPU: geometry on one crop, colour and noise on a batch.

After RandAugment (Cubuk et al., 2020) as scene text recognition uses it: a few operations per crop, all of
moderate size, none that makes a word unreadable.
"""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter

BICUBIC, BILINEAR = Image.Resampling.BICUBIC, Image.Resampling.BILINEAR


def resize(picture: Image.Image, size: tuple[int, int]) -> np.ndarray:
    """RGB picture -> uint8 (height, width, 3), straight to the size, as the runtime prepares its images."""
    return np.asarray(picture.resize((size[1], size[0]), BICUBIC))


def distort(picture: Image.Image, size: tuple[int, int], rng: np.random.Generator, strength: float = 1.0) -> np.ndarray:
    """Resize with a jittered crop, then perhaps a small perspective and a blur: uint8 (height, width, 3)."""
    high, wide = size
    w, h = picture.size
    box = None
    if rng.random() < 0.6:
        left, right = rng.uniform(0, 0.03, 2) * min(w, 2 * h)
        top, bottom = rng.uniform(0, 0.08, 2) * h
        box = (left, top, w - right, h - bottom)
    picture = picture.resize((wide, high), BICUBIC, box=box)
    if rng.random() < 0.35 * strength:
        picture = picture.transform((wide, high), Image.Transform.PERSPECTIVE, _perspective(wide, high, rng), BILINEAR,
                                    fillcolor=_border(picture))  # fmt: skip
    if rng.random() < 0.15 * strength:
        picture = picture.filter(ImageFilter.GaussianBlur((rng.uniform(0.2, 1.6), rng.uniform(0.2, 1.0))))
    return np.asarray(picture)


def recolour(pixels: np.ndarray, rng: np.random.Generator, strength: np.ndarray) -> np.ndarray:
    """Brightness, contrast, colour cast, grey, inversion and noise: uint8 (N, height, width, 3) -> the same."""
    n = len(pixels)
    x = pixels.astype(np.float32)

    def some(chance: float) -> np.ndarray:
        return (rng.random(n) < chance * strength).reshape(n, 1, 1, 1)

    gain = np.exp(rng.normal(0, 0.25, (n, 1, 1, 1)) + rng.normal(0, 0.08, (n, 1, 1, 3)))
    shift = rng.normal(0, 20, (n, 1, 1, 1)) + rng.normal(0, 8, (n, 1, 1, 3))
    mean = x.mean(axis=(1, 2), keepdims=True)
    x = np.where(some(0.5), (x - mean) * gain.astype(np.float32) + mean + shift.astype(np.float32), x)
    x = np.where(some(0.1), 255 - x, x)
    x = np.where(some(0.1), x.mean(axis=3, keepdims=True), x)
    noisy = np.flatnonzero(rng.random(n) < 0.15 * strength)
    if len(noisy):
        x[noisy] += rng.uniform(2, 14, (len(noisy), 1, 1, 1)) * rng.standard_normal(x[noisy].shape, np.float32)
    return np.clip(x, 0, 255).astype(np.uint8)


def _perspective(wide: int, high: int, rng: np.random.Generator) -> tuple[float, ...]:
    """Coefficients of a map that moves each corner by up to a twelfth of the height and width, rotated a little."""
    corners = np.array([(0, 0), (wide, 0), (wide, high), (0, high)], float)
    moved = corners + rng.uniform(-1, 1, (4, 2)) * (0.03 * wide, 0.1 * high)
    tilt = rng.normal(0, 0.05) * high
    moved[:, 1] += np.array([-tilt, tilt, tilt, -tilt])
    rows, values = [], []
    for (x, y), (u, v) in zip(corners, moved):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
        values += [u, v]
    return tuple(np.linalg.solve(np.array(rows), np.array(values)).tolist())


def _border(picture: Image.Image) -> tuple[int, ...]:
    """The colour of the top left corner: less of an edge than black where the map looks outside."""
    return picture.getpixel((0, 0))  # type: ignore[return-value]
