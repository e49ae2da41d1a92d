"""Sections of the GPU suite, each a process of its own: one that fails, hangs or loses the device ends no other."""

from __future__ import annotations

import json
import os
import re
import time

import pytest

from clip4str.benchmarks import gpu_suite
from clip4str.benchmarks.gpu.supervisor import Reporter, Section, Store, supervise
from clip4str.benchmarks.gpu_suite import main
from clip4str.core.errors import DeviceError


def crash(report: Reporter) -> None:
    report.values["kept"] = 1
    report.save()
    os._exit(3)


def hang(report: Reporter) -> None:
    report.values["kept"] = 2
    report.save()
    time.sleep(60)


def raises(report: Reporter) -> None:
    assert report.attempt("a part", 0, lambda: 1 / 0) is None
    raise ValueError("no")


def fine(report: Reporter) -> None:
    report.values["before"] = sorted(report.results)
    report.attempt("a long part", 1e6, lambda: None)


@pytest.fixture
def store(tmp_path) -> Store:
    return Store(tmp_path / "results.json", {})


def run(store: Store, *sections: Section, seconds: float = 30, **more) -> dict:
    supervise(sections, more.pop("prepare", lambda: None), more.pop("alive", lambda: True), store, seconds,
              say=lambda text: None, **more)  # fmt: skip
    assert store.path is not None
    return json.loads(store.path.read_text())


def test_whatever_a_section_does_the_run_goes_on(store):
    sections = [Section(f.__name__, 1, f) for f in (crash, raises, fine)]
    results = run(store, *sections)
    states = {name: values["state"] for name, values in results["sections"].items()}
    assert states == {"crash": "died without a word", "raises": "failed: ValueError: no", "fine": "done"}
    assert results["crash"] == {"kept": 1}
    assert [f["what"] for f in results["failures"]] == ["the section", "a part", "the section"]
    assert "ZeroDivisionError" in results["raises"]["tracebacks"]["a part"]
    assert results["skipped"] == [{"section": "fine", "what": "a long part", "why": "no time left"}]
    assert {"crash", "raises"} <= set(results["fine"]["before"])


def test_a_section_that_hangs_is_killed(store):
    results = run(store, Section("hang", 1, hang), Section("fine", 30, fine), seconds=8, grace=0.5)
    assert results["sections"]["hang"]["state"].startswith("was killed") and results["hang"] == {"kept": 2}
    assert results["sections"]["fine"]["state"] == "done"


def test_a_section_out_of_time_is_not_called_done(store):
    store.results["minutes"], said = 30, []
    late = Section("late", 1, lambda report: report.out_of_time("the tests", 47.3))
    supervise([late, Section("fine", 1, fine)], lambda: None, lambda: True, store, 30, say=said.append)
    assert said[0] == "late: out of time (47 s of --minutes 30): try --minutes 60"
    assert re.fullmatch(r"fine: done, \d\.\d s", said[1])
    assert store.results["sections"]["late"]["state"].startswith("out of time")
    assert [(f["section"], f["what"]) for f in store.results["failures"]] == [("late", "the tests")]


def test_no_time_left(store):
    results = run(store, Section("hang", 1, hang), Section("fine", 1e-6, fine), seconds=1.5, grace=0.2)
    assert "killed" in results["sections"]["hang"]["state"]
    assert results["skipped"] == [{"section": "fine", "what": "all of it", "why": "no time left"}]


def test_a_lost_device_means_a_new_process(store):
    def process(report: Reporter) -> None:
        report.values["process"] = os.getpid()

    results = run(store, Section("a", 1, process), Section("b", 1, process), alive=lambda: False)
    assert [f["what"] for f in results["failures"]] == ["the device"] * 2
    results = run(store, Section("a", 1, process), Section("b", 1, process))
    assert results["a"]["process"] != results["b"]["process"], "a process each"


def test_a_device_that_is_gone_later_is_that_sections_failure(store):
    def prepare() -> None:
        if store.results["sections"]:
            raise DeviceError("fell off the bus")

    results = run(store, *(Section(name, 1, fine) for name in ("first", "second", "third")), prepare=prepare)
    assert results["sections"]["first"]["state"] == "done"
    assert [f["why"] for f in results["failures"]] == ["could not start: fell off the bus"] * 2


def test_what_the_start_raises_ends_the_run(store):
    def prepare() -> None:
        raise DeviceError("no GPU here")

    with pytest.raises(RuntimeError, match="no GPU here"):
        run(store, Section("fine", 1, fine), prepare=prepare)


def test_results_are_named_after_the_device(tmp_path):
    store = Store(None, {}, lambda name: tmp_path / f"{name}.json")
    store.take("values", "environment", {"name": "x1"})
    store.write()
    assert json.loads((tmp_path / "x1.json").read_text())["environment"] == {"name": "x1"}


def test_what_was_left_out_makes_the_exit_code_1(tmp_path, monkeypatch, capsys):
    path = tmp_path / "results.json"
    monkeypatch.setattr(gpu_suite, "_sections", lambda *given: [Section("a", 1, lambda report: None)])
    assert main(["--dry-run", "--output", str(path)]) == 0
    monkeypatch.setattr(gpu_suite, "_sections", lambda *given: [Section("a", 1, lambda report: report.skip("b", "c"))])
    assert main(["--dry-run", "--output", str(path)]) == 1
    assert "left out: 1\n  a, b: c" in capsys.readouterr().out
