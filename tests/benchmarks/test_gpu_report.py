"""What the suite's report says: targets beside predictions, files, and what a time was measured under."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from clip4str.benchmarks.devices import DEVICES
from clip4str.benchmarks.gpu.device import StandIn
from clip4str.benchmarks.gpu.files import END_BIAS, _ending
from clip4str.benchmarks.gpu.kernels import _time
from clip4str.benchmarks.gpu.networks import TINY
from clip4str.benchmarks.gpu.report import summary, targets
from clip4str.benchmarks.random_weights import random_network
from clip4str.model import load_checkpoint


def measured(
    eager: float = 13, compiled: float = 4, tower: float = 1.5, rate: float = 0.6, after: float = 0.12
) -> dict:
    one = {"summary": {"best_eager": "published_half", "best_eager_over_ours": eager, "times_tower": tower},
           "predicted": {"times_tower": 1.85}}  # fmt: skip
    sixty_four = {
        "summary": {"after_share": after, "rate_share": rate},
        "predicted": {"after_share": 0.13, "rate_share": 0.49},
    }
    sides = {"1": {"summary": {"compiled_over_ours": compiled}}}
    return {"end_to_end_base16": {"batches": {"1": one, "64": sixty_four}}, "compiled": {"batches": sides}}


def files(busy: float, first: float, rate: float = 9000.0) -> dict:
    return {
        "load_seconds": 1.0, "warm_up_seconds": 2.0, "files": 1024, "images_per_second": rate, "device_busy": busy,
        "first_word": {"first_us": 700.0 * first, "later": spread_of(700.0), "first_over_median": first},
        "passes_per_batch": {"visual": 3.0, "cross": 2.5, "refine": 2.0},
    }  # fmt: skip


def spread_of(us: float) -> dict[str, float]:
    return {"median": us, "quartile_1": us, "quartile_3": us}


def test_targets_are_met_or_missed():
    good = targets({**measured(), "files": {"base16": files(0.9, 1.2)}})
    assert [t["state"] for t in good] == ["met"] * 7
    assert "published_half" in good[0]["name"] and (good[2]["goal"], good[2]["predicted"]) == ("at most 1.5", 1.85)
    bad = targets(measured(12.9, 3.9, 1.51, 0.59, 0.121))
    assert [t["state"] for t in bad] == ["missed"] * 5 + ["not measured"] * 2
    assert {t["state"] for t in targets({})} == {"not measured"}
    row = next(line for line in summary({"targets": good}).splitlines() if "image tower alone" in line)
    assert row.split()[-5:] == ["most", "1.5", "1.85", "1.50", "met"]


def test_a_rehearsal_compares_nothing():
    batch = {"sides": {"ours": spread_of(9.0), "published_fp32": spread_of(2.0)},
             "summary": {"published_fp32_over_ours": 0.2}}  # fmt: skip
    case = {"operator": "o", "name": "n", "shipped_us": 9.0, "best": {"us": 1.0, "config": "c"}}
    results = {"end_to_end_small": {"batches": {"1": batch}}, "sweep": {"cases": [case]}, "targets": targets({})}
    compared = "ours is faster: published_fp32 0.2x", "better than the shipped one", "targets (B/16, one H100)"
    assert all(words in summary(results) for words in compared)
    text = summary({**results, "dry_run": True})
    assert "a rehearsal with tiny networks on a CPU" in text and "small, us" in text and "sweep: 1 cases" in text
    assert not any(words in text for words in compared)


def test_every_target_has_a_prediction():
    found = targets(measured())
    assert all(t["predicted"] is not None for t in found), [t["name"] for t in found if t["predicted"] is None]
    assert found[1]["predicted"] < 4, "missed against torch.compile, and said so beforehand"


def test_the_targets_of_b16_are_measured_on_b16():
    """The small network, which is promised nothing, is told of beside it."""
    results = {"files": {"base16": files(0.95, 1.0), "small": files(0.57, 1.5, 80_000.0)}}
    assert [(t["figure"], t["state"]) for t in targets(results)[-2:]] == [(0.95, "met"), (1.0, "met")]
    assert {t["state"] for t in targets({"files": {"small": files(1, 1)}})} == {"not measured"}
    of_base16, of_small = (line for line in summary(results).splitlines() if line.startswith("files to words, "))
    assert "random weights" in of_base16 and "9000 images a second, the device busy 95%" in of_base16
    assert "3 visual, 2.5 cross, 2 refine" in of_base16, "words that are read further are seen"
    assert of_small.startswith("files to words, small: 80000 images a second, the device busy 57%")
    unfinished = summary({"files": {"base16": {"load_seconds": 1.0}}})
    assert "- images a second" in unfinished and "first word - us" in unfinished


def test_random_weights_for_files_are_the_usual_ones_but_end_words_sooner(tmp_path):
    written = load_checkpoint(_ending(StandIn(), TINY, tmp_path / "tiny.safetensors"))
    assert written.config == TINY
    usual = random_network(TINY).state_dict()
    for name, found in written.state_dict().items():
        want = usual[name].clone()
        if name.endswith("head.bias"):
            want[0] += END_BIAS
        torch.testing.assert_close(found, want.half().float(), rtol=0, atol=0)


@pytest.mark.parametrize(("cache", "cold"), [(4096, True), (4097, False)])
def test_times_with_inputs_in_the_cache_are_marked_warm(cache, cold):
    """Two sets of 4 KB take turns: cold where the cache holds half of them."""
    gpu = StandIn()
    gpu.l2_bytes = cache
    case = SimpleNamespace(
        name="base16 batch 1", function=torch.neg, baseline=None, bytes=4096, flops=1,
        make=lambda device, dtype: {"input": torch.zeros(512)},
    )  # fmt: skip
    values = _time(gpu, "linear", case, DEVICES["h100"])
    assert values["cold_is_cold"] is cold
    row = next(line for line in summary({"kernels": {"linear": [values]}}).splitlines() if "batch 1" in line)
    assert ("(warm)" in row) is not cold


def test_how_float32_is_multiplied_stands_beside_versions():
    head = summary({"environment": {"float32_products": "highest", "tf32_override": "0"}})
    assert "float32 products highest, NVIDIA_TF32_OVERRIDE 0" in head
