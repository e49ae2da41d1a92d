"""Integers and scales: against the definitions, and against a brute-force search."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clip4str.export.quantization.arithmetic import (
    E4M3,
    S8,
    U8,
    Range,
    activation_scale,
    best_range,
    factored_weights,
    quantised_weights,
)
from clip4str.export.quantization.products import fake_quantised


@pytest.fixture
def weight() -> np.ndarray:
    random = np.random.default_rng(0)
    return (random.standard_normal((20, 30)) * np.exp(random.normal(0, 2, (20, 1)))).astype(np.float32)


def test_every_output_has_its_own_scale(weight):
    integers, scales = quantised_weights(weight)
    assert integers.dtype == np.int8 and scales.dtype == np.float32 and scales.shape == (20,)
    steps = np.abs(weight).max(axis=1) / 127
    assert np.allclose(scales, steps, rtol=1e-6)
    assert integers.min() >= -127  # -128 would have no opposite
    assert np.abs(integers * scales.astype(np.float64)[:, None] - weight).max(axis=1) == pytest.approx(
        steps / 2, rel=0.3
    )
    assert (np.abs(integers).max(axis=1) >= 126).all()


def test_half_scales_and_factors_are_rounded_by_as_stored(weight):
    # one of half precision may be off by 1/2048: unless the integers know, that is 0.06 of a step at 127
    integers, scale, factors = factored_weights(weight, S8)
    assert integers.dtype == np.int8 and scale.shape == () and scale.dtype == factors.dtype == np.float16
    scales = float(scale) * factors.astype(np.float64)[:, None]
    error = np.abs(integers * scales - weight) / scales
    assert error.max() <= 0.5 + 0.07, "the largest of a row may be just beyond 127"
    peaks = np.abs(weight).max(axis=1)
    near, least = peaks > peaks.max() / 60, factors == 2**-6
    assert near.sum() > 5 and least.sum() > 2 and not (near & least).any()
    assert (np.abs(integers).max(axis=1)[near] >= 126).all()  # rows that matter use all of the eight bits


def test_rows_of_nothing_have_a_scale_all_the_same():
    integers, scales = quantised_weights(np.zeros((2, 3), np.float32))
    assert (scales > 0).all() and not integers.any()  # TensorRT refuses a scale of 0
    integers, scale, factors = factored_weights(np.zeros((2, 3), np.float32), S8)
    assert scale > 0 and (factors > 0).all() and not integers.any()


@pytest.mark.parametrize("numbers", [S8, U8, E4M3], ids=lambda n: n.name)
@pytest.mark.parametrize("range_", [Range(-1, 3), Range(0.5, 2), Range(-4, -1), Range(0, 0)])
def test_zero_stays_zero_and_the_range_is_covered(numbers, range_):
    place = activation_scale(range_, numbers)
    low, high = numbers.least, numbers.most
    kept = [(limit - place.zero) * float(place.scale) for limit in (low, high)]
    step = float(place.scale)
    assert kept[0] <= min(range_.low, 0) + step / 2 + 1e-9 and kept[1] >= max(range_.high, 0) - step / 2 - 1e-9
    assert low <= place.zero <= high and (place.zero == 0 or not numbers.symmetric)
    zeros = fake_quantised(torch.zeros(3), range_, numbers)
    assert not zeros.any()


@pytest.mark.parametrize("numbers", [S8, U8, E4M3], ids=lambda n: n.name)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_no_scale_is_nothing(numbers, dtype):
    """Of activations that are all 0: no runtime takes such a scale."""
    assert activation_scale(Range(0, 0), numbers, dtype).scale > 0


@pytest.mark.parametrize("numbers", [S8, U8, E4M3], ids=lambda n: n.name)
@pytest.mark.parametrize("tail", [0.0, 30.0])
def test_the_best_range_costs_least(numbers, tail):
    """Against the cost itself, worked out for every pair of a coarse grid of ranges."""
    random = np.random.default_rng(1)
    values = random.gamma(2, 1, (20000, 8)).astype(np.float32) - 1
    values[0, 0] += tail
    importance = np.exp(random.normal(0, 0.1, 8))

    def cost(range_: Range) -> float:
        rounded = fake_quantised(torch.from_numpy(values), range_, numbers).numpy()
        return float((importance * (rounded - values) ** 2).sum())

    limits = Range(float(values.min()), float(values.max()))
    found = best_range(values, importance, limits, numbers)
    grid = [Range(limits.low * a, limits.high * b) for a in np.linspace(0.1, 1, 10) for b in np.linspace(0.1, 1, 10)]
    if numbers.symmetric:
        grid = [Range(-r.high, r.high) for r in grid]
    assert cost(found) <= 1.1 * min(map(cost, grid))
    if tail and numbers is not E4M3:  # one value in 160,000, far out, is clipped
        assert found.high < 0.9 * limits.high


def test_importance_decides_what_is_clipped():
    values = np.random.default_rng(2).standard_normal((2000, 2)).astype(np.float32)
    values[:, 1] *= 20
    limits = Range(float(values.min()), float(values.max()))
    narrow, wide = (best_range(values, np.array(w), limits, S8) for w in ([1.0, 1e-6], [1e-6, 1.0]))
    assert narrow.high < wide.high / 3
