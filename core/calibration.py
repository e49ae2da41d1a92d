"""Calibration of confidence by temperature: one number for a network, which benchmarks/calibration.py fits on words
held out of training."""

from __future__ import annotations

from typing import Any

import numpy as np

LOWEST, HIGHEST = 0.2, 20.0  # below, the powers of a float32's odds would overflow


def calibrated(confidence: np.ndarray, temperature: float) -> np.ndarray:
    """sigmoid(logit(confidence) / temperature) of words' confidences, float64; for temperature 1 the array itself.

    Temperature scaling (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017) of a word's log-odds of
    being right. The order of words does not change; nor do 0, 1 and values that are no probabilities, such as NaN.
    """
    if temperature == 1:
        return confidence
    values = confidence.astype(np.float64)
    inside = (values > 0) & (values < 1)
    odds_against = (1 - values[inside]) / values[inside]
    values[inside] = 1 / (1 + odds_against ** (1 / temperature))
    return values


def is_temperature(value: Any) -> bool:
    """A number from LOWEST to HIGHEST?"""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and LOWEST <= value <= HIGHEST
