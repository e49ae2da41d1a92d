"""Eight-bit numbers: how weights and ranges become numbers and scales. Everything else here asks this file.

value = scale x (number - zero point). Weights: one scale for each output, symmetric. Activations: one scale for the
tensor. CPUs have integers, uint8 with a zero point for activations; GPUs symmetric int8, or E4M3: floating point, four
bits of exponent and three of mantissa, 448 the largest and no infinity (ONNX's float8e4m3fn). On GPUs an output's scale
is one of the whole tensor times a factor of its own: see nodes.py.
"""

from __future__ import annotations

from typing import NamedTuple

import ml_dtypes
import numpy as np

BINS = 2048
CUTS = 64  # thresholds tried at either end of a range
_LEAST: dict[type[np.floating], float] = {np.float32: 1e-15, np.float16: 2.0**-24}  # scales: no runtime takes 0
_E4M3_LEAST_EXPONENT, _E4M3_MANTISSA = -6, 3  # of normal numbers, and bits
_LEAST_FACTOR = 2.0**-6  # of an output's scale: what is that much smaller is normal still, at a 64th of the largest


class Numbers(NamedTuple):
    """What values are rounded to, in units of their scale. name: the manifest's."""

    name: str
    dtype: type[np.generic]
    least: float
    most: float

    @property
    def symmetric(self) -> bool:
        return self.least == -self.most

    @property
    def floating(self) -> bool:
        return self.name == "e4m3"

    def rounded(self, x: np.ndarray) -> np.ndarray:
        """The nearest of them, of two the even one; what lies outside is the least or the most."""
        return np.clip(x if self.floating else np.rint(x), self.least, self.most).astype(self.dtype)

    def spacing(self, x: np.ndarray) -> np.ndarray:
        """Between neighbours at |x|."""
        if not self.floating:
            return np.ones_like(x)
        exponent = np.floor(np.log2(np.clip(np.abs(x), 2.0**_E4M3_LEAST_EXPONENT, self.most)))
        return 2.0 ** (exponent - _E4M3_MANTISSA)


S8 = Numbers("s8", np.int8, -127, 127)
U8 = Numbers("u8", np.uint8, 0, 255)
E4M3 = Numbers("e4m3", ml_dtypes.float8_e4m3fn, -448, 448)


class Range(NamedTuple):
    """What of a tensor's values is kept apart: those outside are clipped."""

    low: float
    high: float


class Scale(NamedTuple):
    """Of an activation. zero: the number that stands for 0.0."""

    scale: np.ndarray
    zero: int
    numbers: Numbers


def quantised_weights(weight: np.ndarray, least: np.ndarray | float = 0.0) -> tuple[np.ndarray, np.ndarray]:
    """(out, in) -> int8 integers (out, in), scales (out,) float32, none below `least`, (out,)."""
    exact = np.abs(weight).max(axis=1) / S8.most
    scales = np.maximum(np.maximum(exact, least), _LEAST[np.float32]).astype(np.float32)
    return S8.rounded(weight / scales[:, None]), scales


def factored_weights(weight: np.ndarray, numbers: Numbers) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(out, in) -> S8 or E4M3 numbers (out, in), a scale (), and what it is multiplied by for each output (out,), from
    1/64 to 1; these two in half precision, and numbers are rounded by them as they are."""
    peaks = np.abs(weight).max(axis=1)
    scale = np.array(max(peaks.max() / numbers.most, _LEAST[np.float16]), np.float16)
    factors = np.clip(peaks / (float(scale) * numbers.most), _LEAST_FACTOR, 1).astype(np.float16)
    return numbers.rounded(weight / (scale.astype(np.float32) * factors.astype(np.float32))[:, None]), scale, factors


def activation_scale(range_: Range, numbers: Numbers, float_dtype: type[np.floating] = np.float32) -> Scale:
    """The scale of a range; 0.0 is always one of its values."""
    low, high = min(range_.low, 0.0), max(range_.high, 0.0)
    tiny = 1e-7  # half precision still has it
    width = max(-low, high) if numbers.symmetric else high - low
    scale = np.array(max(max(width, tiny) / numbers.most, _LEAST[float_dtype]), float_dtype)
    if numbers.symmetric:
        return Scale(scale, 0, numbers)
    return Scale(scale, int(np.clip(np.rint(-low / scale), 0, numbers.most)), numbers)


def best_range(values: np.ndarray, importance: np.ndarray, limits: Range, numbers: Numbers) -> Range:
    """The range whose rounding and clipping errors, squared and added up, are least.

    values (n, in): a sample. importance (in,): what an error in each feature costs, the squared norm of the weights it
    meets. limits: the least and greatest value seen anywhere. Rounding errors are taken as even over one step.
    """
    symmetric = numbers.symmetric
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
    scales = (highs[None, :] - lows[:, None]) / numbers.most
    cost = clipped + _rounding(counts, at, scales, numbers)
    i, j = np.unravel_index(cost.argmin(), cost.shape)
    return Range(float(-highs[j] if symmetric else lows[i]), float(highs[j]))


def _beyond(counts: np.ndarray, at: np.ndarray, cuts: np.ndarray) -> np.ndarray:
    """Squared distance, times counts, of all that lies above each cut: (cuts,)"""
    return np.array([(counts * np.maximum(at - cut, 0) ** 2).sum() for cut in cuts])


def _rounding(counts: np.ndarray, at: np.ndarray, scales: np.ndarray, numbers: Numbers) -> np.ndarray:
    """Squared rounding errors, times counts, by each scale, of its shape."""
    if not numbers.floating:
        return counts.sum() * scales**2 / 12
    return np.vectorize(lambda scale: (counts * (scale * numbers.spacing(at / scale)) ** 2).sum() / 12)(scales)
