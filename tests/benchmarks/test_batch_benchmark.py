"""benchmarks/batch.py: a job and the recogniser read the same crops in turns."""

from __future__ import annotations

import json
import sys
from types import SimpleNamespace

import pytest

pytest.importorskip("pyarrow")

import clip4str.serving.batch as package
from clip4str.benchmarks import batch
from clip4str.benchmarks.batch import main
from clip4str.core.errors import UsageError
from clip4str.serving.batch.job_options import word_options


def test_sides_are_timed_and_compared(tiny_bundle, tmp_path, capsys):
    report = tmp_path / "out.json"
    options = ["--copies", "1", "--chunk", "8", "--repeat", "1", "--names", "500", "--json", str(report)]
    assert main(["--bundle", str(tiny_bundle), *options]) == 0
    found = json.loads(report.read_text())
    rows = {row["side"]: row for row in found["rows"]}
    assert list(rows) == ["the recogniser, 1 thread", "a job, 1 worker", "a job, 2 workers"]
    assert rows["the recogniser, 1 thread"]["ratio"] == 1 and found["crops"] == 32
    assert all(row["words_a_second"] > 0 and row["processor_ms_a_word"] > 0 for row in rows.values())
    assert found["listing"]["bytes_a_name"] > 0 and "| a job, 2 workers" in capsys.readouterr().out


def test_workers_of_ray_find_what_they_compare_with(tiny_bundle, tmp_path, monkeypatch):
    """A worker refuses a job that its words do not belong to."""

    def run(args, job):
        for name, here in word_options(args).items():  # as ray_engine's workers do
            assert job.about[name] == here
        yield from ((number, "0" * 16, [None] * 8) for number in range(3))

    monkeypatch.setitem(sys.modules, "ray", SimpleNamespace(init=lambda **_: None, shutdown=lambda: None))
    monkeypatch.setattr(package, "ray_engine", SimpleNamespace(run=run), raising=False)
    assert batch._ray(tiny_bundle, tmp_path, 8, workers=1, cores=1) > 0


def test_wrong_options_are_refused():
    with pytest.raises(UsageError, match="1 or more"):
        main(["--copies", "0"])
