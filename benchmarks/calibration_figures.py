"""Calibration of confidence, and the temperature that improves it most. Numpy alone.

confidence: of every word, (N,), the network's own unless said otherwise. right: was it read right, (N,) bool.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from clip4str.benchmarks.figures import accuracy
from clip4str.core.calibration import HIGHEST, LOWEST, calibrated
from clip4str.core.errors import DataError

BINS = 15
_LEAST, _MOST = 2.0**-149, 1 - 2.0**-25  # float32 products round to 0 or 1: clipped to this, their log loss is finite
_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Figures:
    """accuracy, confidence: means, 0 to 1. ece: expected calibration error over 15 bins of equal width (Guo et al.,
    2017); ece_adaptive: over 15 of equally many words (Nguyen and O'Connor, 2015). ece_of_chance: the mean
    ece of as many words with these confidences if the confidences were exact: what remains by chance. brier: mean
    squared error, nll: mean log loss (natural).
    """

    words: int
    accuracy: float
    confidence: float
    ece: float
    ece_adaptive: float
    ece_of_chance: float
    brier: float
    nll: float

    def to_json(self) -> dict[str, Any]:
        return {k: round(v, 5) if isinstance(v, float) else v for k, v in asdict(self).items()}


@dataclass(frozen=True)
class Fit:
    """A temperature and its 95 % interval, from the curvature of the likelihood."""

    temperature: float
    low: float
    high: float


def fit_temperature(confidence: np.ndarray, right: np.ndarray) -> Fit:
    """The maximum-likelihood temperature (the log loss is convex in its inverse). Words of confidence 0 or 1, which no
    temperature changes, are left out.

    Raises DataError if there is nothing to fit: all words right or all wrong, or the best temperature is out of range.
    """
    moved = (confidence > 0) & (confidence < 1)
    p, right = confidence[moved].astype(np.float64), right[moved]
    if right.all() or not right.any():
        raise DataError(f"all {right.size} words to fit on are {'right' if right.all() else 'wrong'}: nothing to fit")
    odds = np.log(p) - np.log1p(-p)
    signed = np.where(right, odds, -odds)
    best = golden_section(lambda inverse: float(np.logaddexp(0, -inverse * signed).mean()), 1 / HIGHEST, 1 / LOWEST)
    if not 1.001 / HIGHEST < best < 0.999 / LOWEST:
        raise DataError(
            f"the likeliest temperature is not within {LOWEST:g} to {HIGHEST:g}: confidence says too little of these "
            "words, or they are too few"
        )
    p = 1 / (1 + np.exp(-best * odds))
    error = 1.959964 / np.sqrt((odds**2 * p * (1 - p)).sum())
    ends = (1 / max(inverse, 1 / HIGHEST) for inverse in (best + error, best - error))
    return Fit(*(round(float(value), 4) for value in (1 / best, *ends)))


def golden_section(value: Callable[[float], float], low: float, high: float, steps: int = 60) -> float:
    """Minimum of a unimodal function (Kiefer, 1953). steps: each shrinks the range to 0.62 of it."""
    left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
    at_left, at_right = value(left), value(right)
    for _ in range(steps):
        if at_left < at_right:
            high, right, at_right = right, left, at_left
            left = high - _GOLDEN * (high - low)
            at_left = value(left)
        else:
            low, left, at_left = left, right, at_right
            right = low + _GOLDEN * (high - low)
            at_right = value(right)
    return (low + high) / 2


def figures(confidence: np.ndarray, right: np.ndarray, temperature: float = 1.0) -> Figures:
    """Figures of the confidence calibrated with `temperature`."""
    p = calibrated(confidence, temperature).astype(np.float64)
    inside = p.clip(_LEAST, _MOST)
    return Figures(
        words=len(p),
        accuracy=float(right.mean()),
        confidence=float(p.mean()),
        ece=ece(p, right),
        ece_adaptive=gap(p, right, np.array_split(np.argsort(p, kind="stable"), BINS)),
        ece_of_chance=_ece_of_chance(p),
        brier=float(((p - right) ** 2).mean()),
        nll=float(-np.where(right, np.log(inside), np.log1p(-inside)).mean()),
    )


def ece(p: np.ndarray, right: np.ndarray) -> float:
    """Expected calibration error: over bins of equal width, weighted by their words."""
    number = bin_numbers(p)
    return gap(p, right, [np.flatnonzero(number == k) for k in range(BINS)])


def gap(p: np.ndarray, right: np.ndarray, groups: list[np.ndarray]) -> float:
    """Mean over all words of |share right - mean confidence| of their group. groups: indices."""
    return sum(abs(float(right[group].sum() - p[group].sum())) for group in groups) / len(p)


def bin_numbers(p: np.ndarray) -> np.ndarray:
    """Indices into 15 bins of equal width, (N,) int: each bin has its lower edge, the last both."""
    return np.minimum((p * BINS).astype(int), BINS - 1)


def reliability(confidence: np.ndarray, right: np.ndarray, temperature: float = 1.0) -> list[dict[str, Any]]:
    """The non-empty bins: index, mean confidence in percent, and accuracy with its 95 % interval."""
    p = calibrated(confidence, temperature).astype(np.float64)
    number = bin_numbers(p)
    return [
        {"bin": int(k), "confidence": round(100 * float(p[number == k].mean()), 2),
         **accuracy(right[number == k].tolist())}
        for k in np.unique(number)
    ]  # fmt: skip


def _ece_of_chance(p: np.ndarray, draws: int = 200) -> float:
    chance = np.random.default_rng(0)
    return float(np.mean([ece(p, chance.random(len(p)) < p) for _ in range(draws)]))
