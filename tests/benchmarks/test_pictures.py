"""The benchmark of what pictures cost the host: its table is its JSON, and the page says what the committed run did."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from clip4str.benchmarks.pictures import PROGRAM, main
from clip4str.core.console import run_script

ROOT = Path(__file__).resolve().parents[2]


def test_the_table_is_what_was_measured(tmp_path, capsys, few_crops):
    file = tmp_path / "pictures.json"
    how = ["--images", str(few_crops), "--networks", "small", "--batch", "4", "--turns", "2", "--threads", "2"]
    assert main([*how, "--device", "orin-nano", "--json", str(file)]) == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| small")]
    rows = json.loads(file.read_text())["rows"]
    assert [row["kind"] for row in rows] == ["files", "arrays"] and len(lines) == 2
    for row, line in zip(rows, lines):
        assert [f"{row[f'{name}_us']['median']:.0f}" for name in ("host", "staged")] == re.findall(r"\b\d+\b", line)[:2]
        assert row["share"] == pytest.approx(row["staged_us"]["median"] / row["host_us"]["median"], abs=1e-3)
        assert row["host_us"]["median"] > 0 and row["after_per_second"] > row["before_per_second"] > 0
        assert 0 < row["device_busy"] <= 1 and row["bytes"] > 1000
        assert row["status"].startswith("predicted")


@pytest.mark.parametrize("change, words", [
    (["--batch", "0"], "--batch, --turns and --threads are 1 or more"),
    (["--device", "abacus"], "--device knows orin-nano"),
    (["--images", "nowhere"], "nowhere: no pictures there"),
    (["--json", "nowhere/figures.json"], "its folder does not exist"),
])  # fmt: skip
def test_wrong_options_are_one_line(change, words, capsys):
    assert run_script(PROGRAM, main, change) == 2
    told = capsys.readouterr().err
    assert re.search(words, told) and len(told.splitlines()) == 1


def test_the_page_says_what_the_committed_run_measured():
    rows = json.loads((ROOT / "benchmarks/results/pictures.json").read_text())["rows"]
    page = (ROOT / "docs/gpu.md").read_text()
    for row in rows:
        name = {"base16": "B/16", "small": "small"}[row["network"]]
        host, staged = (f"{row[f'{side}_us']['median']:,.0f} us" for side in ("host", "staged"))
        assert f"| {name} | {row['kind']} | {host} | {staged} |" in page
        if row["network"] == "base16":
            assert row["share"] <= 0.2, "the bar"
    b16 = next(row for row in rows if row["network"] == "base16" and row["kind"] == "files")
    assert f"{b16['before_per_second']:,.0f} images a second before, {b16['after_per_second']:,.0f} now" in page
