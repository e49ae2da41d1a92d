"""Ranges of a plan, and SmoothQuant: outliers moved from activations, which share one scale, into weights.

Xiao et al., "SmoothQuant: Accurate and Efficient Post-Training Quantization for Large Language Models", ICML 2023:
each feature of a product's input is divided by max|x|^a / max|w|^(1 - a), and the weights that it meets multiplied by
it. The division costs nothing where a LayerNorm alone feeds the product: it goes into that one's weight and bias.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from clip4str.export.quantization.arithmetic import Range, best_range
from clip4str.export.quantization.plan import TOWERS, Quantization, norm_of, parameters_of, unit_of
from clip4str.export.quantization.products import Watch, exact_outputs, relative_error
from clip4str.model.clip4str import Clip4Str

STRENGTHS = (None, 0.25, 0.5, 0.75)
_LARGEST = 2.0**8  # of a factor, and 1 / it: LayerNorm weights stay well inside half precision


def smoothing_factors(peaks: np.ndarray, weight: np.ndarray, strength: float) -> np.ndarray:
    """(in,) from each feature's largest value and the weights (out, in); their geometric mean is about 1."""
    against = np.maximum(np.abs(weight).max(axis=0), 1e-6)
    factors = np.maximum(peaks, 1e-6) ** strength / against ** (1 - strength)
    factors /= np.exp(np.log(factors).mean())
    return factors.clip(1 / _LARGEST, _LARGEST).astype(np.float32)


def with_ranges(
    plan: Quantization, model: Clip4Str, watched: Watch, strengths: Mapping[str, float | None]
) -> Quantization:
    """The plan with folds and ranges for all products. strengths: of smoothing, by tower; None for none."""
    folds: dict[str, np.ndarray] = {}
    ranges: dict[str, Range] = {}
    for product, tensor in parameters_of(model, model.config).items():
        strength, weight = strengths[unit_of(product).split(".")[0]], tensor.detach().numpy()
        low, high = watched.peaks[product]
        values = watched.sample(product)
        if strength is not None and norm_of(product):
            factors = folds[product] = smoothing_factors(np.maximum(-low, high), weight, strength)
            low, high, values, weight = low / factors, high / factors, values / factors, weight * factors
        limits = Range(float(low.min()), float(high.max()))
        ranges[product] = best_range(values, (weight**2).sum(axis=0), limits, plan.activations)
    return replace(plan, folds=folds, ranges=ranges)


def best_smoothing(
    plan: Quantization, model: Clip4Str, watched: Watch, inputs: Mapping[str, Any]
) -> tuple[Quantization, dict[str, float | None], dict[str, dict[str, float]]]:
    """The plan with the strengths that leave each tower's outputs nearest, those strengths, and all errors.

    inputs: what each tower reads for it. Errors: {tower: {strength: relative error}}.
    """
    exact = exact_outputs(model, inputs)
    errors: dict[str, dict[float | None, float]] = {tower: {} for tower in TOWERS}
    for strength in STRENGTHS:
        tried = with_ranges(plan, model, watched, dict.fromkeys(TOWERS, strength))
        for tower, x in inputs.items():
            errors[tower][strength] = relative_error(model, tried, tower, x, exact[tower])
    best = {tower: min(found, key=lambda s: found[s]) for tower, found in errors.items()}
    figures = {
        t: {"none" if s is None else str(s): float(f"{e:.4g}") for s, e in found.items()} for t, found in errors.items()
    }
    return with_ranges(plan, model, watched, best), best, figures
