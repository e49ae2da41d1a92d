"""Textless crops of kinds that training never draws: whether nothing is read where nothing was practised, either."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from clip4str.training.textless.paint import Size, along, as_pixels, blend, colour, field, grid, two_colours
from clip4str.training.textless.scripts import MEASURED, other_script
from clip4str.training.textless.shapes import ground


def unseen_pattern(rng: np.random.Generator, size: Size) -> np.ndarray:
    """Halftone dots, zigzags, weave, a maze of diagonals, rings of wood, moiré."""
    makers = (halftone, zigzag, weave, maze, rings, moire)
    return makers[rng.integers(len(makers))](rng, size)


def halftone(rng: np.random.Generator, size: Size) -> np.ndarray:
    """Dots that grow along a gradient."""
    period, angle = _period(rng, size), float(rng.uniform(0, np.pi / 2))
    u, v = (along(rng, size, a) * 2 * np.pi / period for a in (angle, angle + np.pi / 2))
    level = field(rng, size, size[0])
    return blend(np.clip(3 * (np.cos(u) + np.cos(v) - level) + 0.5, 0, 1), *two_colours(rng))


def zigzag(rng: np.random.Generator, size: Size) -> np.ndarray:
    y, x = grid(size)
    period = _period(rng, size)
    way = y + np.abs(x % (2 * period) - period) * rng.uniform(0.4, 1.2)
    return blend((way % period < period / 2).astype(np.float32), *two_colours(rng))


def weave(rng: np.random.Generator, size: Size) -> np.ndarray:
    """Bands over and under each other, as of a basket."""
    y, x = grid(size)
    period = _period(rng, size)
    over = (np.floor(y / period) + np.floor(x / period)) % 2 == 0
    shade = np.where(over, np.sin(np.pi * (y % period) / period), np.sin(np.pi * (x % period) / period))
    return blend(shade.astype(np.float32), *two_colours(rng))


def maze(rng: np.random.Generator, size: Size) -> np.ndarray:
    """A diagonal in each cell, falling or rising by chance."""
    y, x = grid(size)
    period = max(6.0, _period(rng, size))
    rows, columns = (y // period).astype(int), (x // period).astype(int)
    falls = rng.random((int(rows.max()) + 1, int(columns.max()) + 1)) < 0.5
    u, v = x % period, y % period
    away = np.where(falls[rows, columns], np.abs(u - v), np.abs(u + v - period))
    return blend((away < 0.2 * period).astype(np.float32), *two_colours(rng))


def rings(rng: np.random.Generator, size: Size) -> np.ndarray:
    """Wood across the grain, cut far from its middle."""
    y, x = grid(size)
    far = np.hypot(x + rng.uniform(0.3, 2) * size[1], (y - rng.uniform(-1, 2) * size[0]) * rng.uniform(0.6, 2))
    wave = np.sin((far + 2 * field(rng, size, 12)) * 2 * np.pi / _period(rng, size))
    return blend(0.5 + 0.4 * wave, *two_colours(rng))


def moire(rng: np.random.Generator, size: Size) -> np.ndarray:
    """Two fine rulings, turned a little."""
    angle, period = float(rng.uniform(0, np.pi)), rng.uniform(2.2, 6)
    waves = [np.sin(along(rng, size, a) * 2 * np.pi / period) for a in (angle, angle + rng.uniform(0.03, 0.3))]
    return blend(np.clip(0.5 + waves[0] * waves[1], 0, 1), *two_colours(rng))


def unseen_figure(rng: np.random.Generator, size: Size) -> np.ndarray:
    """Curves of a chart, soap bubbles, branches, a photo's worth of soft lights, confetti."""
    makers = (chart, bubbles, branches, lights, confetti)
    return makers[rng.integers(len(makers))](rng, size)


def chart(rng: np.random.Generator, size: Size) -> np.ndarray:
    """One to three curves from left to right."""
    canvas = Image.fromarray(ground(rng, size))
    pen, x = ImageDraw.Draw(canvas), np.linspace(-2, size[1] + 2, 40)
    for _ in range(int(rng.integers(1, 4))):
        y = size[0] * (0.5 + 0.2 * np.cumsum(rng.normal(0, 0.35, len(x))))
        pen.line(list(zip(x.tolist(), y.tolist())), fill=_tone(rng), width=int(rng.integers(1, 4)))
    return _soft(rng, canvas)


def bubbles(rng: np.random.Generator, size: Size) -> np.ndarray:
    """Dozens of thin rings over each other."""
    canvas = Image.fromarray(ground(rng, size))
    pen = ImageDraw.Draw(canvas)
    for _ in range(int(rng.integers(15, 40))):
        y, x, r = rng.uniform(0, size[0]), rng.uniform(0, size[1]), rng.uniform(0.05, 0.5) * size[0]
        pen.ellipse((x - r, y - r, x + r, y + r), outline=_tone(rng))
    return _soft(rng, canvas)


def branches(rng: np.random.Generator, size: Size) -> np.ndarray:
    """Bare twigs against the sky."""
    canvas = Image.fromarray(ground(rng, size))
    pen, tone = ImageDraw.Draw(canvas), _tone(rng)
    twigs = [(rng.uniform(-0.2, 1.2) * size[1], 1.1 * size[0], float(rng.normal(-1.57, 0.6)), 0.5 * size[0])] * 3
    for depth in range(5):
        grown = []
        for x, y, angle, length in twigs:
            end = (x + length * np.cos(angle), y + length * np.sin(angle))
            pen.line((x, y, *end), fill=tone, width=max(1, 3 - depth))
            grown += [(*end, angle + float(rng.normal(0, 0.6)), length * 0.7) for _ in range(2)]
        twigs = grown
    return _soft(rng, canvas)


def lights(rng: np.random.Generator, size: Size) -> np.ndarray:
    """Lamps out of focus in the dark."""
    y, x = grid(size)
    values = np.full((*size, 3), colour(rng) / 8, np.float32)
    for _ in range(int(rng.integers(3, 15))):
        r = rng.uniform(0.08, 0.4) * size[0]
        away = np.hypot(y - rng.uniform(0, size[0]), x - rng.uniform(0, size[1]))
        values += np.clip(1.5 * (r - away) / r, 0, 1)[..., None] * rng.uniform(40, 255, 3)
    return as_pixels(values)


def confetti(rng: np.random.Generator, size: Size) -> np.ndarray:
    """Small turned squares of all colours."""
    canvas = Image.fromarray(ground(rng, size))
    pen = ImageDraw.Draw(canvas)
    for _ in range(int(rng.integers(20, 90))):
        x, y, r = rng.uniform(0, size[1]), rng.uniform(0, size[0]), rng.uniform(0.03, 0.1) * size[0]
        pen.regular_polygon((x, y, max(1.5, r)), 4, rotation=int(rng.integers(90)), fill=_tone(rng))
    return np.asarray(canvas)


def unseen_script(rng: np.random.Generator, size: Size) -> np.ndarray:
    """Lines in scripts that training does not have."""
    return other_script(rng, size, MEASURED)


def _period(rng: np.random.Generator, size: Size) -> float:
    return float(np.exp(rng.uniform(np.log(3), np.log(max(4, 0.6 * size[0])))))


def _tone(rng: np.random.Generator) -> tuple[int, ...]:
    return tuple(int(c) for c in colour(rng))


def _soft(rng: np.random.Generator, canvas: Image.Image) -> np.ndarray:
    return np.asarray(canvas.filter(ImageFilter.GaussianBlur(float(rng.uniform(0.3, 0.9)))))
