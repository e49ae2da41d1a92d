"""The gate: it measures what it says, and names the stage that is off."""

from __future__ import annotations

import json

import numpy as np
import pytest

from clip4str.core.errors import ParityError
from clip4str.core.reading import Pass
from clip4str.export.parity import Parity, max_difference, measure
from clip4str.runtime.backends.ort import OrtBackend
from clip4str.runtime.bundle import STAGES, Bundle


class Spoiled:
    """A bundle's stages, one of which is off by a factor."""

    flexible_steps = True

    def __init__(self, stages, spoiled, factor):
        self.stages, self.spoiled, self.factor = stages, spoiled, factor

    def __getattr__(self, name):
        function = getattr(self.stages, name)

        def call(*inputs):
            result = function(*inputs)
            if name != self.spoiled:
                return result
            if isinstance(result, Pass):
                logits = result.logits * self.factor
                return Pass(logits.argmax(-1), result.probs, logits)
            if isinstance(result, tuple):
                return tuple(r * np.float32(self.factor) for r in result)
            return result * np.float32(self.factor)

        return call


@pytest.fixture(scope="module")
def stages(tiny_bundle):
    return OrtBackend(Bundle.open(tiny_bundle), threads=1)


@pytest.mark.parametrize("stage", STAGES)
def test_the_stage_that_is_off_is_named(tiny_model, stages, golden_pixels, stage):
    parity = measure(tiny_model, Spoiled(stages, stage, -1.0), golden_pixels)
    assert parity.worst == stage
    good = [s for name, s in parity.stages.items() if name != stage]
    assert all(s.relative < 1e-5 for s in good), "others are fed the reference's inputs"
    with pytest.raises(ParityError, match=f"words agree .*worst stage: {stage} "):
        parity.check(0.99)
    assert parity.words and str(parity.agreeing) in parity.table()


def test_a_good_bundle_passes(tiny_model, stages, golden_pixels):
    done = []
    parity = measure(tiny_model, stages, golden_pixels, done.append)
    parity.check(1.0)
    assert sum(done) == parity.images == parity.agreeing == len(golden_pixels)
    assert 0 < parity.max_logits < 1e-3 and parity.max_confidence < 1e-3
    values = json.loads(json.dumps(parity.to_dict(), allow_nan=False))
    assert set(values["stages"]) == set(STAGES) and values["agreement"] == 1


def test_values_that_are_no_numbers_are_infinitely_off(tiny_model, stages, golden_pixels):
    parity = measure(tiny_model, Spoiled(stages, "image", float("nan")), golden_pixels[:2])
    assert parity.worst == "image" and parity.stages["image"].max_abs == float("inf")
    with pytest.raises(ParityError, match="stage image gives values that are no finite numbers"):
        parity.check(0.99)
    json.dumps(parity.to_dict(), allow_nan=False)


def test_a_network_and_a_bundle_that_agree_in_giving_no_numbers_do_not_pass():
    """One NaN among the weights: every word is '', on both sides."""
    parity = Parity(images=32, agreeing=32)
    parity.stages["cross"].calls = 4
    parity.stages["cross"].add(np.full((1, 26, 95), np.nan), np.full((1, 26, 95), np.nan))
    with pytest.raises(ParityError, match="stage cross gives values that are no finite numbers, in 1 of 4 calls"):
        parity.check(0)


def test_the_gate_is_a_share():
    parity = Parity(images=200, agreeing=198)
    parity.check(0.99)
    with pytest.raises(ParityError, match="198 of 200"):
        parity.check(0.991)


def test_difference():
    assert max_difference(np.array([1.0, 2.0]), np.array([1.5, 2.0])) == 0.5
    assert max_difference(np.array([1.0, np.nan]), np.array([1.0, 1.0])) == float("inf")
