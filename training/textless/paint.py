"""Colours, random fields and what a camera does: shared by all kinds of textless crops."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image, ImageFilter

from ..drawing.surfaces import SIGNS

Size = tuple[int, int]  # height, width
BICUBIC = Image.Resampling.BICUBIC


def colour(rng: np.random.Generator) -> np.ndarray:
    """Any colour, greys and muted ones more often than chance would have them: float32 [3], 0 to 255."""
    grey = rng.uniform(0, 255)
    return np.clip(grey + rng.normal(0, rng.choice((0, 12, 40, 90)), 3), 0, 255).astype(np.float32)


def two_colours(rng: np.random.Generator, apart: float = 40) -> tuple[np.ndarray, np.ndarray]:
    """As signs pair them, or any two; their mean differs by at least `apart`, in either order."""
    if rng.random() < 0.3:
        pair = [np.array(c, np.float32) for c in SIGNS[rng.integers(len(SIGNS))]]
    else:
        pair = [colour(rng), colour(rng)]
        if abs(pair[0].mean() - pair[1].mean()) < apart:
            pair[1] = (pair[1] - pair[1].mean()) / 2 + (pair[0].mean() + rng.uniform(apart, 128)) % 256
    if rng.random() < 0.5:
        pair.reverse()
    return pair[0], pair[1]


def blend(share: np.ndarray, one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """share (H, W): how much of `other` there is, 0 to 1. uint8 (H, W, 3)."""
    return as_pixels(one + share[..., None] * (other - one))


def as_pixels(values: np.ndarray) -> np.ndarray:
    return np.clip(values + 0.5, 0, 255).astype(np.uint8)


def field(rng: np.random.Generator, size: Size, cell: float) -> np.ndarray:
    """Smooth noise of about unit variance, one random value each `cell` pixels: float32 (H, W)."""
    coarse = (max(2, round(size[0] / cell) + 1), max(2, round(size[1] / cell) + 1))
    values = rng.standard_normal(coarse, np.float32)
    if cell <= 1:
        return values[: size[0], : size[1]]
    return np.asarray(Image.fromarray(values).resize((size[1], size[0]), BICUBIC))


def grid(size: Size) -> tuple[np.ndarray, np.ndarray]:
    """Rows and columns of the pixels, float32 (H, 1) and (1, W)."""
    return np.arange(size[0], dtype=np.float32)[:, None], np.arange(size[1], dtype=np.float32)[None]


def along(rng: np.random.Generator, size: Size, angle: float | None = None) -> np.ndarray:
    """How far each pixel lies in some direction (radians), in pixels: float32 (H, W)."""
    angle = float(rng.uniform(0, 2 * np.pi)) if angle is None else angle
    y, x = grid(size)
    return (x * np.cos(angle) + y * np.sin(angle)).astype(np.float32)


def photograph(rng: np.random.Generator, pixels: np.ndarray) -> np.ndarray:
    """Some blur, noise, JPEG, each in part of the crops."""
    if rng.random() < 0.3:
        blurred = Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 1.5))))
        pixels = np.asarray(blurred)
    if rng.random() < 0.3:
        pixels = grain(rng, pixels, float(rng.uniform(1, 12)))
    if rng.random() < 0.25:
        pixels = jpeg(pixels, int(rng.integers(8, 70)))
    return pixels


def grain(rng: np.random.Generator, pixels: np.ndarray, amount: float) -> np.ndarray:
    """Noise of that deviation, grey or of each colour."""
    channels = int(rng.choice((1, 3)))
    noise = rng.standard_normal((*pixels.shape[:2], channels), np.float32)
    return as_pixels(pixels + amount * noise)


def jpeg(pixels: np.ndarray, quality: int) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer))
