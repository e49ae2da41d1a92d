"""What a camera does to a word: light, blur, few pixels, noise, JPEG, and things in front."""

from __future__ import annotations

import functools
import io
import math
import random

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from clip4str.training.surfaces import BANK_SEED, BICUBIC, BILINEAR, colour_at, ink, ramp, smooth_field


def photograph(rng: random.Random, picture: Image.Image, letters: float) -> Image.Image:
    """`picture` (RGB) as a camera might take it, in the same size; letters: their height in pixels."""
    pixels = light(rng, np.asarray(picture, np.float32))
    picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    if rng.random() < 0.03:
        occlude(rng, picture)
    return sensor(rng, blur(rng, picture, letters), letters)


def light(rng: random.Random, pixels: np.ndarray) -> np.ndarray:
    """Uneven light, shadows, glare, exposure and colour cast; float32 [H, W, 3] in and out."""
    high, wide = pixels.shape[:2]
    u = rng.random()
    if u < 0.2:
        pixels = pixels * (1 + ramp(rng, wide, high) * rng.uniform(0.05, 0.4))[..., None]
    elif u < 0.32:
        field = smooth_field(rng, wide, high, rng.randint(2, 4), rng.randint(2, 3))
        pixels = pixels * (1 + field * rng.uniform(0.05, 0.4))[..., None]
    elif u < 0.37:  # the edge of a shadow
        edge = ramp(rng, wide, high) * rng.uniform(3, 30) + rng.uniform(-2, 2)
        pixels = pixels * (1 - rng.uniform(0.15, 0.5) * np.clip(edge + 0.5, 0, 1))[..., None]
    elif u < 0.42:  # glare
        glare = np.clip(smooth_field(rng, wide, high, rng.randint(2, 5), 2), 0, 1)
        pixels = pixels + glare[..., None] * rng.uniform(30, 100)
    if rng.random() < 0.55:
        gain, haze, level = math.exp(rng.gauss(-0.1, 0.3)), rng.random() ** 2 * 0.5, rng.uniform(20, 220)
        cast = np.array([rng.gauss(1, 0.07) for _ in range(3)], np.float32) * np.float32(gain)
        pixels = (pixels * (1 - haze) + level * haze) * cast
    return pixels


def blur(rng: random.Random, picture: Image.Image, letters: float) -> Image.Image:
    """Gaussian, defocus or motion blur, in proportion to the letters."""
    u, unit = rng.random(), letters / 26
    if u < 0.38:
        return picture
    if u < 0.8:
        return picture.filter(ImageFilter.GaussianBlur(unit * rng.uniform(0.3, 1.1 if u < 0.66 else 2.0)))
    if u < 0.88:
        return picture.filter(ImageFilter.BoxBlur(unit * rng.uniform(0.4, 1.4)))
    length, angle = max(2, round(unit * rng.uniform(2, 5))), rng.uniform(0, math.pi)
    wide, high = picture.size
    padded = np.pad(np.asarray(picture, np.float32), ((length, length), (length, length), (0, 0)), mode="edge")
    total = np.zeros((high, wide, 3), np.float32)
    for k in range(length):
        t = k - (length - 1) / 2
        y, x = length + round(math.sin(angle) * t), length + round(math.cos(angle) * t)
        total += padded[y : y + high, x : x + wide]
    return Image.fromarray((total / length).astype(np.uint8))


def sensor(rng: random.Random, picture: Image.Image, letters: float) -> Image.Image:
    """Low resolution, noise and JPEG, in this order; the picture keeps its size."""
    wide, high = picture.size
    if rng.random() < 0.4:
        # Letters of 8 pixels are the least that can be read.
        low = int(high * max(rng.uniform(0.3, 0.9), rng.uniform(8, 13) / letters))
        if low < high:
            shrink = rng.choice((BILINEAR, BICUBIC, Image.Resampling.BOX))
            small = grain(rng, picture.resize((max(4, wide * low // high), low), shrink), 0.25)
            picture = small.resize((wide, high), rng.choice((BILINEAR, BICUBIC, BICUBIC)))
    picture = grain(rng, picture, 0.3)
    if rng.random() < 0.55:
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=rng.randint(15, 60) if rng.random() < 0.4 else rng.randint(60, 92))
        picture = Image.open(buffer).convert("RGB")
    return picture


@functools.lru_cache(maxsize=1)
def _noise_bank() -> np.ndarray:
    """Standard normal values, [256, 1024, 3] float32."""
    return np.random.default_rng(BANK_SEED + 1).standard_normal((256, 1024, 3)).astype(np.float32)


def grain(rng: random.Random, picture: Image.Image, chance: float) -> Image.Image:
    """Sensor noise, grey or coloured, with probability `chance`."""
    if rng.random() >= chance:
        return picture
    wide, high = picture.size
    bank = _noise_bank()
    if high > bank.shape[0] or wide > bank.shape[1]:
        bank = np.tile(bank, (high // bank.shape[0] + 1, wide // bank.shape[1] + 1, 1))
    y, x = rng.randint(0, bank.shape[0] - high), rng.randint(0, bank.shape[1] - wide)
    noise = bank[y : y + high, x : x + wide, : rng.choice((1, 3, 3))]
    amount = rng.uniform(1, 5) if rng.random() < 0.85 else rng.uniform(5, 14)
    return Image.fromarray(np.clip(np.asarray(picture, np.float32) + noise * amount, 0, 255).astype(np.uint8))


def occlude(rng: random.Random, picture: Image.Image) -> None:
    """A wire, a pole or a leaf in front of the word."""
    pen = ImageDraw.Draw(picture)
    wide, high = picture.size
    tone = ink(colour_at(rng, rng.uniform(10, 230), rng.random() * 0.6))
    x, lean = rng.uniform(0.1, 0.9) * wide, rng.uniform(-0.6, 0.6) * high
    if rng.random() < 0.7:
        line = max(1, int(high * rng.uniform(0.03, 0.14)))
        pen.line([(x - lean, -2), (x + lean, high + 2)], fill=tone, width=line)
    else:
        r, y = high * rng.uniform(0.08, 0.2), rng.uniform(0, high)
        pen.ellipse((x - r, y - r, x + r, y + r), fill=tone)
