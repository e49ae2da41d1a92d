"""Eight-bit numbers: how weights and ranges become integers and scales. Everything else here asks this file.

value = scale x (integer - zero point). Weights: one scale for each output, symmetric, -127 to 127. Activations: one
scale for the tensor; symmetric int8 for GPUs, uint8 with a zero point for CPUs.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

BINS = 2048
CUTS = 64  # thresholds tried at either end of a range
_LEAST: dict[type[np.floating], float] = {np.float32: 1e-15, np.float16: 2.0**-24}  # scales: no runtime takes 0


class Range(NamedTuple):
    """What of a tensor's values is kept apart: those outside are clipped."""

    low: float
    high: float


class Scale(NamedTuple):
    """Of an activation. zero: the integer that stands for 0.0; dtype: int8 or uint8."""

    scale: np.ndarray
    zero: int
    dtype: type[np.generic]

    @property
    def limits(self) -> tuple[int, int]:
        return (-127, 127) if self.dtype is np.int8 else (0, 255)


def quantised_weights(
    weight: np.ndarray, float_dtype: type[np.floating] = np.float32, least: np.ndarray | float = 0.0
) -> tuple[np.ndarray, np.ndarray]:
    """(out, in) -> int8 integers (out, in), scales (out,) of `float_dtype`, none below `least`, (out,).

    Integers are rounded by the scales as stored: rounding those to half costs nothing then.
    """
    exact = np.abs(weight).max(axis=1) / 127
    scales = np.maximum(np.maximum(exact, least), _LEAST[float_dtype]).astype(float_dtype)
    integers = np.rint(weight / scales.astype(np.float32)[:, None])
    return np.clip(integers, -127, 127).astype(np.int8), scales


def activation_scale(range_: Range, symmetric: bool, float_dtype: type[np.floating] = np.float32) -> Scale:
    """The scale of a range; 0.0 is always one of its values."""
    low, high = min(range_.low, 0.0), max(range_.high, 0.0)
    tiny = 1e-7  # half precision still has it
    if symmetric:
        return Scale(np.array(max(-low, high, tiny) / 127, float_dtype), 0, np.int8)
    scale = np.array(max(high - low, tiny) / 255, float_dtype)
    return Scale(scale, int(np.clip(np.rint(-low / scale), 0, 255)), np.uint8)


def best_range(values: np.ndarray, importance: np.ndarray, limits: Range, symmetric: bool) -> Range:
    """The range whose rounding and clipping errors, squared and added up, are least.

    values (n, in): a sample. importance (in,): what an error in each feature costs, the squared norm of the weights it
    meets. limits: the least and greatest value seen anywhere. Rounding errors are taken as even over one step.
    """
    if symmetric:
        values, limits = np.abs(values), Range(0.0, max(-limits.low, limits.high))
    low, high = min(limits.low, 0.0), max(limits.high, 0.0)
    if high - low < 1e-7:
        return Range(-high if symmetric else low, high)
    counts, edges = np.histogram(values, BINS, (low, high), weights=np.broadcast_to(importance, values.shape))
    at = (edges[:-1] + edges[1:]) / 2
    shares = np.linspace(1 / CUTS, 1, CUTS)
    lows = np.zeros(1) if symmetric or low == 0 else low * shares
    highs = np.zeros(1) if high == 0 else high * shares
    clipped = _beyond(counts, -at, -lows)[:, None] + _beyond(counts, at, highs)[None, :]
    steps = (highs[None, :] - lows[:, None]) / (127 if symmetric else 255)
    cost = clipped + counts.sum() * steps**2 / 12
    i, j = np.unravel_index(cost.argmin(), cost.shape)
    return Range(float(-highs[j] if symmetric else lows[i]), float(highs[j]))


def _beyond(counts: np.ndarray, at: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """Squared distance, times counts, of all that lies above each cut: (cuts,)"""
    return np.array([(counts * np.maximum(at - cut, 0) ** 2).sum() for cut in cuts])
