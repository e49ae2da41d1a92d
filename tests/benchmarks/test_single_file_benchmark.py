"""benchmarks/single_file.py: every form is timed beside the bundle, and its words are counted."""

from __future__ import annotations

import json

from clip4str.benchmarks.single_file import main


def test_all_forms_are_timed_and_compared(tiny_bundle, few_crops, tmp_path, capsys):
    arguments = ["--bundle", tiny_bundle, "--words", few_crops, "--batch", 1, 4, "--threads", 1, "--repeat", 2]
    assert main([str(argument) for argument in [*arguments, "--json", tmp_path / "out.json"]]) == 0
    rows = json.loads((tmp_path / "out.json").read_text())["rows"]
    assert {(row["side"], row["batch"]) for row in rows} == {
        (side, batch) for side in ("bundle", "exact", "exact, static", "fixed") for batch in (1, 4)
    }
    for row in rows:
        assert row["milliseconds"] > 0 and row["words"] == 8
        assert row["side"] == "fixed" or row["equal_words"] == 8
        assert row["side"] != "bundle" or row["ratio"] == 1
    assert "| exact, static |" in capsys.readouterr().out
