"""Blobs, ovals, lines and shapes as logos have them, but none that is a character: no ring, no single bar or cross."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from . import plain
from .paint import Size, blend, colour, field, two_colours

Points = list[tuple[float, float]]


def shapes(rng: np.random.Generator, size: Size) -> np.ndarray:
    kinds = (blobs, ovals, lines, logo)
    return kinds[rng.integers(len(kinds))](rng, size)


def ground(rng: np.random.Generator, size: Size) -> np.ndarray:
    """What shapes and other scripts stand on."""
    return (plain.blank, plain.blank, plain.gradient)[rng.integers(3)](rng, size)


def blobs(rng: np.random.Generator, size: Size) -> np.ndarray:
    """Smooth patches without a form: stains, clouds, reflections."""
    values = field(rng, size, rng.uniform(0.15, 0.8) * size[0])
    return blend(np.clip((values - rng.uniform(-0.5, 1)) * rng.uniform(1, 12), 0, 1), *two_colours(rng))


def ovals(rng: np.random.Generator, size: Size) -> np.ndarray:
    """Filled ovals and rounded boxes, one to a dozen, cut off by the border in places."""
    canvas = Image.fromarray(ground(rng, size))
    pen = ImageDraw.Draw(canvas)
    for _ in range(int(rng.choice((1, 1, 2, 3, 5, 12)))):
        y, x = rng.uniform(0, size[0]), rng.uniform(0, size[1])
        a, b = rng.uniform(0.12, 0.9) * size[0] * rng.uniform(0.5, 2.5), rng.uniform(0.12, 0.9) * size[0]
        box = (x - a, y - b, x + a, y + b)
        if rng.random() < 0.7:
            pen.ellipse(box, fill=_tone(rng))
        else:
            pen.rounded_rectangle(box, radius=float(rng.uniform(0, min(a, b))), fill=_tone(rng))
    return _soft(rng, canvas)


def lines(rng: np.random.Generator, size: Size) -> np.ndarray:
    """Lines from border to border: wires, cracks, edges of furniture."""
    canvas = Image.fromarray(ground(rng, size))
    pen, (high, wide) = ImageDraw.Draw(canvas), size
    for _ in range(int(rng.integers(1, 8))):
        if rng.random() < 0.6:  # along the crop
            ends: Points = [(-5, rng.uniform(-0.2, 1.2) * high), (wide + 5, rng.uniform(-0.2, 1.2) * high)]
        else:  # across a corner or the whole of it, far from upright: an upright one is an l
            x = rng.uniform(-0.3, 1.3) * wide
            lean = rng.choice((-1, 1)) * rng.uniform(1.2, 4) * high
            ends = [(x - lean / 2, -5), (x + lean / 2, high + 5)]
        pen.line(ends, fill=_tone(rng), width=int(rng.integers(1, max(2, high // 6) + 1)))
    return _soft(rng, canvas)


def logo(rng: np.random.Generator, size: Size) -> np.ndarray:
    """Filled stars, polygons, shields, hearts and pictograms within each other, one or a few side by side."""
    canvas = Image.fromarray(ground(rng, size))
    pen, count = ImageDraw.Draw(canvas), int(rng.choice((1, 1, 1, 2, 3)))
    for k in range(count):
        centre = (size[1] * (k + 0.5) / count + rng.normal(0, 2), size[0] * rng.uniform(0.4, 0.6))
        radius = rng.uniform(0.3, 0.55) * size[0]
        for depth in range(int(rng.integers(2, 5))):
            shrunk = radius * 0.72**depth
            outline = (_star, _regular, _heart, _arrow)[rng.integers(4)](rng)
            pen.polygon([(centre[0] + shrunk * x, centre[1] + shrunk * y) for x, y in outline], fill=_tone(rng))
    return _soft(rng, canvas)


def _star(rng: np.random.Generator) -> Points:
    rays, inner = int(rng.integers(4, 12)), rng.uniform(0.35, 0.8)
    return _around([(1.0, inner)[k % 2] for k in range(2 * rays)], rng.uniform(0, 2 * np.pi))


def _regular(rng: np.random.Generator) -> Points:
    return _around([1.0] * int(rng.choice((3, 4, 5, 6, 8, 24))), rng.uniform(0, 2 * np.pi))


def _heart(rng: np.random.Generator) -> Points:
    t = np.linspace(0, 2 * np.pi, 30)
    y = 13 * np.cos(t) - 5 * np.cos(2 * t) - 2 * np.cos(3 * t) - np.cos(4 * t)
    return list(zip((np.sin(t) ** 3).tolist(), (-y / 16).tolist()))


def _arrow(rng: np.random.Generator) -> Points:
    shaft = rng.uniform(0.2, 0.45)
    points = [(1, 0), (0.1, 0.8), (0.1, shaft), (-1, shaft), (-1, -shaft), (0.1, -shaft), (0.1, -0.8)]
    return [(-x, y) for x, y in points] if rng.random() < 0.5 else [(float(x), float(y)) for x, y in points]


def _around(radii: list[float], start: float) -> Points:
    step = 2 * np.pi / len(radii)
    return [(float(r * np.cos(start + k * step)), float(r * np.sin(start + k * step))) for k, r in enumerate(radii)]


def _tone(rng: np.random.Generator) -> tuple[int, ...]:
    return tuple(int(c) for c in colour(rng))


def _soft(rng: np.random.Generator, canvas: Image.Image) -> np.ndarray:
    """Without the staircases that no photo has."""
    return np.asarray(canvas.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.4, 1.0)))))
