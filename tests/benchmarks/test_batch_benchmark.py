"""benchmarks/batch.py: a job and the recogniser read the same crops in turns."""

from __future__ import annotations

import json

import pytest

pytest.importorskip("pyarrow")

from clip4str.benchmarks.batch import main
from clip4str.core.errors import UsageError


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


def test_wrong_options_are_refused():
    with pytest.raises(UsageError, match="1 or more"):
        main(["--copies", "0"])
