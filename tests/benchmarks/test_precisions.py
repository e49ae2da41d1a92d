"""benchmarks/precisions.py: what its figures are."""

from __future__ import annotations

import json

import numpy as np
import pytest

from clip4str.benchmarks.precisions import compared, main
from clip4str.core.errors import UsageError
from clip4str.data.protocol import Protocol


def test_words_may_differ_and_be_as_right():
    labels = ["stop", "exit", "open", "cafe"]
    exact, other = ["STOP", "exit", "opem", "cafe"], ["Stop", "exit", "open", "cale"]
    first, second = compared([exact, other], labels, Protocol())
    assert first == {"accuracy": 75.0, "same": 100.0, "right": 0, "wrong": 0}
    assert second == {"accuracy": 75.0, "same": 25.0, "right": 1, "wrong": 1}


def test_a_whole_run(tiny_bundle, write_lmdb, tmp_path, capsys):
    random = np.random.default_rng(0)
    words = [(random.integers(0, 256, (20, 50, 3), dtype=np.uint8), f"word{i}") for i in range(20)]
    words[3] = (b"nothing", "unreadable")
    folder, report = write_lmdb(tmp_path / "SVT", words), tmp_path / "report.json"
    assert main(["--data", str(folder), "--bundles", str(tiny_bundle), str(tiny_bundle), "--json", str(report)]) == 0
    figures = json.loads(report.read_text())
    assert figures["words"] == 19 and [row["same"] for row in figures["rows"]] == [100.0, 100.0]
    assert capsys.readouterr().out.count(f"| {tiny_bundle.name}") == 2


def test_mistakes_are_said_first(tiny_bundle, write_lmdb, tmp_path):
    folder = write_lmdb(tmp_path / "SVT", [(b"nothing", "unreadable")])
    with pytest.raises(UsageError, match="no words to read"):
        main(["--data", str(folder), "--bundles", str(tiny_bundle)])
    with pytest.raises(UsageError, match="--limit is 1 or more"):
        main(["--data", str(folder), "--bundles", str(tiny_bundle), "--limit", "0"])
