"""E4M3: against a table of its numbers, and against torch's, which is another implementation."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clip4str.export.quantization.arithmetic import E4M3, Range, activation_scale, factored_weights
from clip4str.export.quantization.products import fake_quantised


@pytest.fixture(scope="module")
def table() -> np.ndarray:
    """All that are no NaN and not negative, by their definition: 4 bits of exponent, bias 7, 3 of mantissa."""
    numbers = [m / 8 * 2.0**-6 for m in range(8)]
    numbers += [(1 + m / 8) * 2.0 ** (e - 7) for e in range(1, 16) for m in range(8)]
    return np.array(numbers[:-1])  # the last is NaN


@pytest.fixture(scope="module")
def values() -> np.ndarray:
    """Small and large, halfway between neighbours and just beside that, and beyond both ends."""
    random = np.random.default_rng(0)
    spread = (random.standard_normal(20000) * np.exp(random.uniform(-12, 7, 20000))).astype(np.float32)
    every_half = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    return np.concatenate((spread, every_half[np.isfinite(every_half)], np.float32([0, 448, 464, 480, 1e9, -1e9])))


def test_its_numbers_are_those_of_the_definition(table):
    assert len(table) == 127 and table[-1] == E4M3.most == -E4M3.least == 448 and table[1] == 2.0**-9
    both = np.concatenate((-table, table)).astype(np.float32)
    assert np.array_equal(E4M3.rounded(both).astype(np.float32), both)
    assert np.array_equal(E4M3.spacing(table[:-1]), np.diff(table))


def test_values_go_to_the_nearest_and_what_is_halfway_to_the_even_one(table, values):
    size = np.minimum(np.abs(values.astype(np.float64)), 448)
    above = np.searchsorted(table, size).clip(1, len(table) - 1)
    below = above - 1
    to_below, to_above = size - table[below], table[above] - size
    nearest = np.where(to_below == to_above, below + below % 2, np.where(to_below < to_above, below, above))
    assert (to_below == to_above).sum() > 200  # halfway ones are among them
    expected = np.copysign(table[nearest], values)
    assert np.array_equal(E4M3.rounded(values).astype(np.float64), expected)


def test_torch_rounds_alike(values):
    inside = np.clip(values, -448, 448)
    by_torch = torch.from_numpy(inside).to(torch.float8_e4m3fn).float().numpy()
    assert np.array_equal(E4M3.rounded(values).astype(np.float32), by_torch)


def test_the_emulation_is_the_rounding_and_saturates(values):
    range_ = Range(-7.0, 5.0)
    scale = float(activation_scale(range_, E4M3).scale)
    got = fake_quantised(torch.from_numpy(values), range_, E4M3).numpy()
    assert scale == pytest.approx(7 / 448) and np.abs(got).max() == pytest.approx(7)
    assert np.array_equal(got, E4M3.rounded(values / np.float32(scale)).astype(np.float32) * np.float32(scale))


@pytest.mark.parametrize("spread", [0.0, 1.0, 6.0])
def test_weights_keep_their_three_bits_at_every_output(spread):
    random = np.random.default_rng(1)
    weight = (0.03 * random.standard_normal((64, 96)) * np.exp(random.normal(0, spread, (64, 1)))).astype(np.float32)
    numbers, scale, factors = factored_weights(weight, E4M3)
    assert scale.dtype == np.float16 and scale.shape == () and factors.shape == (64,)
    assert factors.dtype == np.float16 and 0.99 < factors.max() <= 1 and factors.min() >= 2**-6
    found = numbers.astype(np.float64) * float(scale) * factors.astype(np.float64)[:, None]
    peaks, top = np.abs(weight).max(axis=1, keepdims=True), np.abs(weight).max()
    heard = (peaks > top / 64) & (np.abs(weight) > peaks * 2.0**-13)  # the rest may be subnormal
    assert (peaks < top / 16).any() == (spread > 0) and heard.sum() > 300
    assert np.all(np.abs(found - weight)[heard] <= np.abs(weight)[heard] * (2.0**-4 + 1e-3))  # half a step, and half's
    assert np.abs(found - weight).max() <= top * 2.0**-4


def test_outputs_of_nothing_stay_nothing():
    numbers, scale, factors = factored_weights(np.zeros((3, 8), np.float32), E4M3)
    assert scale > 0 and not numbers.astype(np.float32).any() and np.isfinite(factors).all()
