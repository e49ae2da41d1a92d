"""Puts letters on a ground: shadow, depth, glow, outline, fill, wear, relief."""

from __future__ import annotations

import random

import numpy as np
from PIL import Image, ImageChops, ImageFilter

from clip4str.training import surfaces
from clip4str.training.surfaces import Colour, ink


def paint(rng: random.Random, mask: Image.Image, outline: Image.Image | None, size: int) -> Image.Image:
    """An RGB picture of the size of `mask`.

    mask: ink of the letters (L). outline: the letters and a rim around them (L). size: pixels per em.
    """
    wide, high = mask.size
    text_colour, ground_colour = surfaces.colour_pair(rng)
    busy = 0.0 if rng.random() < 0.2 else rng.random() ** 1.3
    picture = surfaces.surface(rng, wide, high, ground_colour, busy)
    if rng.random() < 0.28:
        surfaces.clutter(rng, picture, text_colour)
    text_colour = _readable(text_colour, picture, mask)
    fill = surfaces.surface(rng, wide, high, text_colour, 0.0 if rng.random() < 0.6 else rng.uniform(0.1, 0.7))
    dark = surfaces.jitter(rng, surfaces.scaled(ground_colour, 0.35), 8)
    _cast(rng, picture, mask, outline, text_colour, dark, max(1, round(size * rng.uniform(0.03, 0.1))))
    if outline is not None:
        opposite = surfaces.colour_at(rng, 255 - surfaces.luminance(text_colour), rng.random() * 0.6)
        picture.paste(ink(opposite if rng.random() < 0.6 else dark), (0, 0), outline)
        if rng.random() < 0.15:  # hollow letters
            fill = Image.new("RGB", mask.size, ink(surfaces.jitter(rng, ground_colour, 15)))
    u = rng.random()
    if u < 0.12:  # faded paint
        mask = mask.point(_opacity(rng.uniform(0.55, 0.9)))
    elif u < 0.18:  # worn off in places
        wear = surfaces.smooth_field(rng, wide, high, wide // 3 + 1, high // 3 + 1) * 220 + 200
        mask = ImageChops.multiply(mask, Image.fromarray(wear.clip(60, 255).astype(np.uint8)))
    picture.paste(fill, (0, 0), mask)
    if rng.random() < 0.1:
        _relief(rng, picture, mask)
    return picture


def _cast(
    rng: random.Random,
    picture: Image.Image,
    mask: Image.Image,
    outline: Image.Image | None,
    text_colour: Colour,
    dark: Colour,
    step: int,
) -> None:
    """What letters throw on the ground: a shadow, their own sides, or light; `step` is a depth in pixels."""
    u = rng.random()
    if u < 0.14:
        shadow = _shift(outline or mask, step * rng.choice((-1, 1, 1)), step * rng.choice((0, 1, 1)))
        if rng.random() < 0.5:
            shadow = shadow.filter(ImageFilter.GaussianBlur(step * 0.7))
        picture.paste(ink(dark), (0, 0), shadow.point(_opacity(rng.uniform(0.4, 1.0))))
    elif u < 0.21:  # solid letters, seen from one side
        dx, dy = rng.choice((-1, 1)), rng.choice((-1, 0, 1))
        side = ink(surfaces.jitter(rng, surfaces.scaled(text_colour, rng.choice((0.5, 0.6, 1.35))), 10))
        for k in range(min(6, 2 * step), 0, -1):
            picture.paste(side, (0, 0), _shift(mask, dx * k, dy * k))
    elif u < 0.26:  # lit from behind
        glow = mask.filter(ImageFilter.GaussianBlur(mask.height * rng.uniform(0.04, 0.12)))
        tone = ink(surfaces.jitter(rng, text_colour, 40))
        picture.paste(tone, (0, 0), glow.point(_opacity(rng.uniform(0.5, 1.0))))


def _relief(rng: random.Random, picture: Image.Image, mask: Image.Image) -> None:
    """One edge of each stroke catches the light, the other lies in the shade."""
    dx, dy, strength = rng.choice((-1, 1)), rng.choice((-1, 1)), rng.uniform(0.4, 0.9)
    for sign, tone in ((1, (250, 250, 245)), (-1, (15, 15, 15))):
        edge = ImageChops.subtract(mask, _shift(mask, dx * sign, dy * sign))
        picture.paste(tone, (0, 0), edge.point(_opacity(strength)))


def _readable(colour: Colour, ground: Image.Image, mask: Image.Image) -> Colour:
    """`colour`, or black or white where it could not be told from what is really behind the letters."""
    small = np.asarray(ground.resize((16, 4), Image.Resampling.BOX), np.float32).reshape(-1, 3)
    weight = np.asarray(mask.resize((16, 4), Image.Resampling.BOX), np.float32).reshape(-1, 1) + 1
    behind = (small * weight).sum(0) / weight.sum()
    if np.abs(np.array(colour) - behind).max() >= 30 + 1.5 * small.std(0).max():
        return colour
    return (15.0, 15.0, 15.0) if behind.mean() > 120 else (240.0, 240.0, 240.0)


def _opacity(alpha: float) -> list[int]:
    return [int(i * alpha) for i in range(256)]


def _shift(mask: Image.Image, dx: int, dy: int) -> Image.Image:
    moved = Image.new("L", mask.size)
    moved.paste(mask, (dx, dy))
    return moved
