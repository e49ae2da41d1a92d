"""Patterns without text: brick, cloth, boards, shutters, checks, grids, bars, leaves."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw

from ..drawing.surfaces import texture_bank
from .paint import Size, along, as_pixels, blend, colour, field, grid, two_colours


def texture(rng: np.random.Generator, size: Size) -> np.ndarray:
    """One of them; how coarse it is varies."""
    kinds = (banked, banked, checks, stripes, bars, lattice, leaves, tiles)
    return kinds[rng.integers(len(kinds))](rng, size)


def banked(rng: np.random.Generator, size: Size) -> np.ndarray:
    """A window of the textures that drawn words stand on, coloured."""
    bank = texture_bank()
    source = bank[rng.integers(len(bank))]
    high = float(np.exp(rng.uniform(np.log(12), np.log(source.height))))
    wide = min(source.width, high * size[1] / size[0])
    left, top = rng.uniform(0, source.width - wide), rng.uniform(0, source.height - high)
    box = (left, top, left + wide, top + high)
    grey = source.resize((size[1], size[0]), Image.Resampling.BILINEAR, box=box)
    share = np.asarray(grey, np.float32) / 255
    if rng.random() < 0.5:
        share = np.clip(0.5 + (share - 0.5) * rng.uniform(1, 3), 0, 1)
    return blend(share, *two_colours(rng))


def checks(rng: np.random.Generator, size: Size) -> np.ndarray:
    """Squares, turned by any angle in half of them, or the crossing bands of cloth."""
    angle = float(rng.uniform(0, np.pi)) if rng.random() < 0.5 else 0.0
    period = _period(rng, size)
    u = np.floor(along(rng, size, angle) / period) % 2
    v = np.floor(along(rng, size, angle + np.pi / 2) / (period * rng.uniform(0.6, 1.6))) % 2
    return blend((u != v).astype(np.float32) if rng.random() < 0.5 else (u + v) / 2, *two_colours(rng))


def stripes(rng: np.random.Generator, size: Size) -> np.ndarray:
    """Parallel bands, sharp or soft, straight or waving."""
    way = along(rng, size) + field(rng, size, size[0] / 2) * rng.choice((0.0, 0.0, 1.5, 4.0))
    wave = np.sin(way * 2 * np.pi / _period(rng, size))
    return blend(np.clip(0.5 + wave * rng.choice((0.5, 2, 20)) + rng.uniform(-0.4, 0.4), 0, 1), *two_colours(rng))


def bars(rng: np.random.Generator, size: Size) -> np.ndarray:
    """Many bars of uneven width across the whole crop: bar codes, fences, slats; or the squares of a matrix code."""
    cell = _period(rng, size) / 3
    rows = max(3, round(size[0] / cell)) if rng.random() < 0.3 else 1
    cells = (rng.random((rows, max(12, round(size[1] / cell)))) < rng.uniform(0.35, 0.65)).astype(np.uint8)
    if rows == 1 and rng.random() < 0.3:
        cells = cells.T
    large = Image.fromarray(cells * 255).resize((size[1], size[0]), Image.Resampling.NEAREST)
    return blend(np.asarray(large, np.float32) / 255, *two_colours(rng, 70))


def lattice(rng: np.random.Generator, size: Size) -> np.ndarray:
    """Thin lines in two directions: squared paper, nets, window bars."""
    angle = float(rng.uniform(0, np.pi)) if rng.random() < 0.4 else 0.0
    period = _period(rng, size) * 1.5
    thin = rng.uniform(0.08, 0.3) * period
    lines = [along(rng, size, a) % period < thin for a in (angle, angle + rng.choice((np.pi / 2, np.pi / 3)))]
    return blend((lines[0] | lines[1]).astype(np.float32), *two_colours(rng))


def tiles(rng: np.random.Generator, size: Size) -> np.ndarray:
    """Bricks in a bond, each of its own shade."""
    high = _period(rng, size) * 1.2
    wide = high * rng.uniform(1.2, 3.5)
    y, x = grid(size)
    row = np.floor(y / high)
    column = np.floor((x + row % 2 * wide / 2) / wide)
    shades = rng.uniform(-1, 1, (int(row.max()) + 1, int(column.max()) + 1)).astype(np.float32)
    shade = shades[row.astype(int), column.astype(int)] * rng.uniform(0, 30)
    joint = (y % high < 0.12 * high) | ((x + row % 2 * wide / 2) % wide < 0.12 * high)
    one, other = two_colours(rng, 25)
    wall = one + shade[..., None] + 6 * field(rng, size, 2)[..., None]
    return as_pixels(np.where(joint[..., None], other, wall))


def leaves(rng: np.random.Generator, size: Size) -> np.ndarray:
    """Hundreds of small leaves, pebbles or crumbs over each other."""
    base, other = colour(rng), colour(rng)
    if rng.random() < 0.6:
        base = np.array((rng.uniform(20, 90), rng.uniform(60, 140), rng.uniform(10, 60)), np.float32)
    canvas = Image.new("RGB", (size[1], size[0]), tuple(int(c) for c in base / 3))
    pen, leaf = ImageDraw.Draw(canvas), rng.uniform(0.06, 0.3) * size[0]
    count = min(220, int(3 * size[0] * size[1] / leaf**2))
    places = rng.uniform((0, 0), size, (count, 2))
    light, angles = rng.uniform(0.3, 1.6, count), rng.uniform(0, np.pi, count)
    for (y, x), lit, angle in zip(places.tolist(), light.tolist(), angles.tolist()):
        tone = base * lit if rng.random() < 0.85 else other * lit
        c, s = leaf * np.cos(angle), leaf * np.sin(angle)
        corners = [(x - c, y - s), (x + s / 3, y - c / 3), (x + c, y + s), (x - s / 3, y + c / 3)]
        pen.polygon(corners, fill=tuple(min(255, int(v)) for v in tone))
    return np.asarray(canvas)


def _period(rng: np.random.Generator, size: Size) -> float:
    """A few pixels to most of the height."""
    return float(np.exp(rng.uniform(np.log(3), np.log(max(4, 0.7 * size[0])))))
