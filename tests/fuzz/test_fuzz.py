"""The fuzzer finds planted faults of every kind, and in a short run none in what reads strangers' files. `make fuzz`
runs longer, and by itself."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

if not sys.platform.startswith("linux"):
    pytest.skip("what an input took is read from /proc", allow_module_level=True)
sys.path.insert(0, str(Path(__file__).parent))

import run
from mutate import Mutator

LIBRARIES = {"checkpoints": "torch", "graphs": "onnx", "manifests": "onnx", "lmdbs": "lmdb"}


@pytest.mark.parametrize(
    ("fault", "finding"),
    [
        ("raises", "KeyError"),
        ("segfault", "SIGSEGV"),
        ("bus", "SIGBUS"),
        ("spins", "longer than it may"),  # SIGPROF, or SIGALRM where other work has the cores
        ("sleeps", "longer than it may (SIGALRM)"),
        ("grows", "more than 32 MB"),
        ("starves", "more memory than there was"),
        ("exits", "exit code 3"),
        ("talks", "not one line"),
    ],
)
def test_a_planted_fault_is_found_saved_and_replayed(fault, finding, tmp_path):
    report = run.fuzz(fault, inputs=3, seed=1, keep=tmp_path, module="planted")
    assert report.inputs == 3 and finding in report.findings[0]["finding"], report
    saved = Path(report.findings[0]["file"])
    assert saved.parent == tmp_path and saved.is_file() and report.findings[0]["file"] in run.told([report])
    again = run.fuzz(fault, files=[saved], keep=tmp_path, module="planted")
    assert again.inputs == 1 and again.findings[0]["finding"] == report.findings[0]["finding"]
    assert [path.name for path in tmp_path.iterdir()].count(saved.name) == 1


def test_after_a_death_the_others_are_tried(tmp_path):
    files = []
    for number, data in enumerate((b"good", b"bad", b"good", b"worse")):
        files.append(tmp_path / f"segfault-{number}")
        files[-1].write_bytes(data)
    report = run.fuzz("segfault", files=files, keep=tmp_path, module="planted")
    assert report.inputs == 4 and len(report.findings) == 2


def test_inputs_that_come_further_are_gone_on_from(tmp_path):
    """Three bytes at once are one of 16 million: found one after the other."""
    report = run.fuzz("far", inputs=6_000, seed=0, keep=tmp_path, module="planted")
    assert any("KeyError" in found["finding"] for found in report.findings)


def test_the_same_seed_makes_the_same_inputs():
    from targets import TARGETS

    for name in ("pictures", "lmdbs", "atlases"):
        seeds = TARGETS[name].seeds()
        one, two, other = (Mutator(seed, seeds, TARGETS[name].form) for seed in (5, 5, 6))
        inputs = [one.next() for _ in range(50)]
        assert inputs == [two.next() for _ in range(50)] != [other.next() for _ in range(50)]
        assert len(set(inputs)) > 45


@pytest.mark.parametrize("target", run.TARGETS)
def test_a_short_run_finds_nothing(target, tmp_path):
    pytest.importorskip(LIBRARIES.get(target, "numpy"))
    report = run.fuzz(target, inputs=150, seed=7, keep=tmp_path)
    assert not report.findings, run.told([report])
    assert report.inputs == 150 and report.counts["refused"] > 20 and report.counts["answered"] > 1, report


@pytest.mark.slow
@pytest.mark.parametrize("target", run.TARGETS)
def test_a_minute_finds_nothing(target):
    """Of inputs that no run had before; what it finds stays in build/fuzz."""
    import time

    report = run.fuzz(target, seconds=60, seed=int(time.time()))
    assert not report.findings, run.told([report])
