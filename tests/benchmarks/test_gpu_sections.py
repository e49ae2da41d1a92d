"""Sections of the GPU suite that run what is not the suite's own: tests, and TensorRT's engines. Without a GPU."""

from __future__ import annotations

import os
import re
import time
from types import SimpleNamespace

import pytest
from sections import Kept

from clip4str.benchmarks.gpu import correctness as module
from clip4str.benchmarks.gpu import engines
from clip4str.benchmarks.gpu.correctness import correctness
from clip4str.benchmarks.gpu.device import StandIn


def test_correctness_is_what_pytest_says(tmp_path, monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    (tmp_path / "test_some.py").write_text("""
import os, pytest
@pytest.mark.gpu
def test_right(): assert os.environ["CLIP4STR_REQUIRE_GPU"] == "1"
@pytest.mark.gpu
def test_wrong(): assert 1 == 2
@pytest.mark.gpu
@pytest.mark.skip(reason="no such kernel here")
def test_left_out(): pass
def test_of_something_else(): assert False
""")
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu\n")
    report = Kept()
    correctness(report, [tmp_path])
    assert report.values == {"tests": 3, "failed": 1, "skipped": 1}
    ((failed, why),) = report.of("failures")
    assert failed.endswith("test_some::test_wrong") and "assert 1 == 2" in why
    ((left_out, why),) = report.of("skipped")
    assert left_out.endswith("test_some::test_left_out") and "no such kernel here" in why


def test_no_tests_are_a_failure(tmp_path):
    (tmp_path / "pytest.ini").write_text("[pytest]\nmarkers = gpu\n")
    report = Kept()
    correctness(report, [tmp_path])
    assert report.values["tests"] == 0 and "pytest ended with 5" in report.of("failures")[0][1]


@pytest.mark.parametrize("processes", [1, 2])
def test_what_was_found_before_the_time_was_up_is_kept(processes, tmp_path, monkeypatch):
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = -q\nmarkers = gpu\n")
    (tmp_path / "test_some.py").write_text("""
import pytest, time
pytestmark = pytest.mark.gpu
@pytest.mark.parametrize("x", ["a FAILED [1]", "c"])
def test_right(x): pass
def test_wrong(): assert 1 == 2
@pytest.mark.skip(reason="PASSED by")
def test_left_out(): pass
def test_slow(): time.sleep(30)
""")
    where = [tmp_path]
    if processes > 1:
        pytest.importorskip("xdist")
        monkeypatch.setattr(os, "cpu_count", lambda: 1 + processes)
        monkeypatch.setattr(module, "KERNELS", where)
    report = Kept()
    report.clock.deadline, report.results["minutes"] = time.monotonic() + 6 * processes, 9.5
    correctness(report, where)
    assert "test_some.py" in report.values.pop("said")
    assert report.values == {"tests": 4, "passed": 2, "failed": 1, "skipped": 1}
    (wrong, _), (_, why) = report.of("failures")
    assert wrong.endswith("test_some.py::test_wrong") and why == report.state
    assert re.fullmatch(r"out of time \(\d+ s of --minutes 9\.5\): try --minutes 20", report.state)


@pytest.mark.parametrize(("capability", "precisions"), [((8, 7), ["fp16", "int8"]), ((8, 9), ["fp16", "int8", "fp8"])])
def test_engines_of_every_precision_that_the_gpu_has(capability, precisions, monkeypatch):
    made: list[str] = []
    monkeypatch.setattr(engines, "_target", lambda: "tensorrt")
    monkeypatch.setattr(engines, "NEEDED", ())
    monkeypatch.setattr(engines, "_measure", lambda report, precision, target: made.append(precision))
    gpu = StandIn()
    gpu.kind, gpu.capability = "cuda", capability
    report = Kept()
    engines.engines(gpu, report)
    assert made == precisions and not report.of("failures") and not report.of("skipped")


def test_engines_are_read_with_compared_and_timed(monkeypatch, tmp_path):
    """With a build and a backend that need no GPU in place of TensorRT's."""
    from clip4str.export import add_engines, bundles
    from clip4str.runtime import Recognizer

    build, kept = bundles.build_bundle, tmp_path / "built"
    said = {"target": "tensorrt", "version": "10.3", "build_seconds": {}, "layers": {}, "parity": {}}
    load = Recognizer.load.__func__

    def read(cls, folder, backend):
        recognizer = load(cls, folder, "onnxruntime", threads=1)
        recognizer.manifest.engines.update(said)
        if backend == "tensorrt":
            recognizer.driver.charset.decode = lambda ids: (
                wrong or type(recognizer.driver.charset).decode(recognizer.driver.charset, ids)
            )
        return recognizer

    def build_once(output, **options):
        return kept if kept.exists() else build(output=kept, **options)

    monkeypatch.setattr(bundles, "build_bundle", build_once)
    monkeypatch.setattr(add_engines, "finish_bundle", lambda *args, **options: None)
    monkeypatch.setattr(Recognizer, "load", classmethod(read))
    monkeypatch.setattr(engines, "ROUNDS", 6)
    for wrong in ("", "scrambled"):
        report = SimpleNamespace(values={}, failures=[], save=lambda: None)
        report.fail = lambda what, why: report.failures.append((what, why))  # noqa: B023
        engines._measure(report, "fp16", "tensorrt")
        found = report.values["fp16"]
        assert found["version"] == "10.3" and found["words"] == 32 and found["batch 8"]["median"] > 0
        assert (found["agreeing"], len(report.failures)) == ((0, 1) if wrong else (32, 0))
