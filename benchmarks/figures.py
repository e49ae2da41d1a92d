"""Measurements as figures and tables: shares with their intervals, quartiles, Markdown."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np


def accuracy(right: Sequence[bool]) -> dict[str, float]:
    """Percent right with its 95 % interval: Wilson's (1927), which is not empty at 0 or 100 percent."""
    words, z = len(right), 1.959964
    p = sum(right) / words
    middle, half = p + z * z / (2 * words), z * math.sqrt(p * (1 - p) / words + (z / (2 * words)) ** 2)
    low, high = (100 * (middle + sign * half) / (1 + z * z / words) for sign in (-1, 1))
    return {
        "percent": round(100 * p, 2), "low": round(max(low, 0.0), 2), "high": round(min(high, 100.0), 2),
        "right": sum(right), "words": words,
    }  # fmt: skip


def quartiles(values: Any) -> dict[str, float]:
    """Median and quartiles of an array, NaN left out."""
    low, middle, high = (round(float(value), 3) for value in np.nanpercentile(values, (25, 50, 75)))
    return {"median": middle, "quartile_1": low, "quartile_3": high}


def between(figure: dict[str, float], places: int = 2, ends: Sequence[str] = ("quartile_1", "quartile_3")) -> str:
    return " to ".join(f"{figure[end]:.{places}f}" for end in ends)


def percent(share: dict[str, float], places: int = 1) -> str:
    """A result of `accuracy` as text: the share, and its interval in brackets."""
    return f"{share['percent']:.{places}f} ({between(share, places, ('low', 'high'))})"


def digits(value: float) -> str:
    """Three significant digits, or all before the point: 0.0123, 1.23, 1234."""
    return f"{value:.{max(0, 2 - math.floor(math.log10(value)))}f}" if value > 0 else "0"


def markdown(heads: Sequence[str], rows: Iterable[Sequence[Any]], texts: int = 1) -> str:
    """A table, aligned so that it can be read as it is. The first `texts` columns are text, the others numbers."""
    lines = [list(heads), *([str(cell) for cell in row] for row in rows)]
    widths = [max(3, *map(len, column)) for column in zip(*lines)]
    cells = [[c.ljust(w) if k < texts else c.rjust(w) for k, (c, w) in enumerate(zip(line, widths))] for line in lines]
    cells.insert(1, [f":{'-' * (w - 1)}" if k < texts else f"{'-' * (w - 1)}:" for k, w in enumerate(widths)])
    return "\n".join(f"| {' | '.join(line)} |" for line in cells)
