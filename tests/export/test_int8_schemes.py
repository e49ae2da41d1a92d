"""Which eight bits a CPU gets: by what it can do, and by what was timed."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from int8_networks import calibration_of, plan_of

from clip4str.core.cpu import cpu_flags, weight_type
from clip4str.export.quantization import build
from clip4str.export.quantization.build import choose_scheme
from clip4str.export.quantization.schemes import MARGIN, faster_scheme, time_in_turn
from clip4str.export.stage_files import write_stages


@pytest.fixture(scope="module")
def network(random_model):
    return random_model(seed=3)


@pytest.mark.parametrize(
    "fixed, dynamic, chosen",
    [
        (10.0, 9.0, "qdq"),  # faster, but not by enough to let answers depend on the batch
        (10.0, 10.0 / (MARGIN + 0.01), "dynamic"),
        (10.0, 10.0 / (MARGIN - 0.01), "qdq"),
        (5.0, 10.0, "qdq"),
    ],
)
def test_the_scheme_follows_the_times(fixed, dynamic, chosen):
    noise_ = np.array([1.0, 1.0, 1.002, 0.999, 1.0, 5.0, 1.0, 1.0])
    assert faster_scheme({"qdq": list(fixed * noise_), "dynamic": list(dynamic * noise_)}) == chosen


def test_a_busy_machine_does_not_decide_the_scheme():
    fixed = [1.0, 1.0, 9.0, 9.0, 9.0, 1.0, 1.0, 9.0]  # other work came and went during its turns
    assert faster_scheme({"qdq": fixed, "dynamic": [1.0] * 8}) == "qdq"


@pytest.mark.parametrize("winner, float32", [("qdq", 3.0), ("dynamic", 3.0), ("qdq", 0.9)])
def test_a_build_takes_the_faster_scheme_and_says_what_it_is_worth(network, monkeypatch, winner, float32, tmp_path):
    read = []

    def times(files, feed):
        read.extend((name, path.is_file()) for name, path in files.items())
        seconds = {"qdq": 2.0, "dynamic": 2.0, winner: 1.0, "float32": float32}
        return {name: [seconds[name]] * 5 for name in files}

    monkeypatch.setattr(build, "time_in_turn", times)
    said = []
    plan, facts = choose_scheme(network, plan_of(network), calibration_of(network), tmp_path, said.append)
    assert plan.scheme == winner and facts["milliseconds"][winner] == 1000
    assert read == [("float32", True), ("qdq", True), ("dynamic", True)]
    assert any("may depend on its batch" in line for line in said) == (winner == "dynamic")
    assert any("not faster than float32" in line for line in said) == (float32 < 1)


def test_stages_take_turns(network, tmp_path):
    stage = tmp_path / "a.onnx"
    write_stages(network, tmp_path, "fp32")
    stage.write_bytes((tmp_path / "image.onnx").read_bytes())
    ticks = iter(range(1000))
    pixels = np.zeros((1, 3, 32, 64), np.float32)
    times = time_in_turn({"a": stage, "b": tmp_path / "image.onnx"}, {"pixels": pixels}, lambda: float(next(ticks)))
    assert times["a"] == times["b"] and set(times["a"]) == {1.0} and 5 <= len(times["a"]) <= 41


@pytest.mark.parametrize(
    "flags, machine, expected",
    [
        ({"avx2"}, "x86_64", "u8"),
        ({"avx2", "avx512f"}, "AMD64", "u8"),
        ({"avx2", "avx_vnni"}, "x86_64", "s8"),
        ({"avx512_vnni"}, "x86_64", "s8"),
        (set(), "x86_64", "u8"),
        (set(), "aarch64", "s8"),
        (set(), "arm64", "s8"),
    ],
)
def test_weights_are_unsigned_where_signed_ones_would_saturate(flags, machine, expected):
    assert weight_type(frozenset(flags), machine) == expected


def test_flags_are_read(tmp_path):
    (tmp_path / "cpuinfo").write_text("processor\t: 0\nflags\t\t: fpu avx2 avx512_vnni\npower: x\nflags\t: none\n")
    assert cpu_flags(tmp_path / "cpuinfo") == {"fpu", "avx2", "avx512_vnni"}
    assert cpu_flags(Path(tmp_path / "nowhere")) == frozenset()


def test_an_8_bit_bundle_carried_to_a_cpu_that_misreads_it_is_told(tiny_bundle, monkeypatch, recwarn):
    from dataclasses import replace

    from clip4str.runtime.backends import ort
    from clip4str.runtime.bundle import Bundle

    bundle = Bundle.open(tiny_bundle)
    eight = Bundle(bundle.folder, replace(bundle.manifest, quantization={"target": "cpu", "weights": "s8"}))
    monkeypatch.setattr(ort, "weight_type", lambda flags: "s8")
    ort.OrtBackend(eight, threads=1)
    monkeypatch.setattr(ort, "weight_type", lambda flags: "u8")
    ort.OrtBackend(bundle, threads=1)
    assert not recwarn.list
    with pytest.warns(RuntimeWarning, match="quantised for processors with VNNI"):
        ort.OrtBackend(eight, threads=1)
