"""log.csv, whole and damaged, and the chart of a run of two minutes."""

from __future__ import annotations

import csv

import numpy as np
import pytest
from tiny import train

from clip4str.core import charts
from clip4str.training import logbook
from clip4str.training.run_log import chart, drop_rows_after, read_rows

HEAD = "step,words,minutes,loss,visual,cross,ctc,validation_visual\n"
ROWS = "50,6400,1.0,3.5,2.0,1.5,0.9,\n100,12800,2.0,2.5,1.5,1.0,0.8,0.42\n"


@pytest.fixture
def drawn(monkeypatch):
    """The figures, as they are drawn."""
    figures = []
    new = charts.new_figure
    monkeypatch.setattr(charts, "new_figure", lambda *a, **k: figures.append(new(*a, **k)) or figures[-1])
    return figures


@pytest.mark.parametrize("rows", [ROWS, ROWS.splitlines(True)[1]])
def test_the_chart_of_a_short_run_shows_its_points(tmp_path, drawn, rows):
    (tmp_path / "log.csv").write_text(HEAD + rows)
    chart(tmp_path / "log.csv", tmp_path / "log.png")
    left, right = drawn[0].axes
    assert left.get_title() and right.get_title() and left.get_xlabel() == "training words seen"
    assert len(left.lines) == 3 and len(right.lines) == 1
    assert all(line.get_marker() == "." for axes in (left, right) for line in axes.lines)
    for axes in (left, right):
        low, high = axes.get_xlim()
        assert low == 0 and 12800 < high < 14000
    low, high = right.get_ylim()
    assert low < 42 < high and low >= 0 and high <= 100 and high - low < 20


def test_a_chart_before_the_first_step_and_with_one_wild_loss(tmp_path, drawn):
    chart(tmp_path / "log.csv", tmp_path / "log.png")
    (tmp_path / "log.csv").write_text(HEAD + "1,128,0.1,99,99,99,9,\n" + ROWS + "150,19200,3,nan,inf,,,\n")
    chart(tmp_path / "log.csv", tmp_path / "log.png")
    assert drawn[1].axes[0].get_yscale() == "log" and np.isfinite(drawn[1].axes[0].get_ylim()).all()


def test_a_run_of_few_slow_steps_has_rows_and_a_chart(words, tmp_path, small_is_tiny, monkeypatch):
    monkeypatch.setattr(logbook, "LOG_SECONDS", 0.0)
    assert train(words, tmp_path / "run", "--steps", "4") == 0
    assert [row["step"] for row in read_rows(tmp_path / "run" / "log.csv")] == [1, 2, 3, 4]
    monkeypatch.setattr(logbook, "LOG_SECONDS", 1e9)
    assert train(words, tmp_path / "other", "--steps", "4") == 0
    assert [row["step"] for row in read_rows(tmp_path / "other" / "log.csv")] == [1, 4]


DAMAGE = {
    "zeros at the end": b"\0" * 4096,
    "a part of a row": b"150,192",
    "a row without its end": b"150,19200\n",
    "a quote that does not end": b'"150,19200,3,1,1,1,1,\n',
    "numbers that are none": b"150,many,3,x,--,1e999,nan,\n",
    "a step beyond all": b"9" * 5000 + b",1,1,1,1,1,1,\n",
    "too many cells": b"150,19200,3,1,1,1,1,0.5,7,8,9\n",
    "bytes of no encoding": b"\xff\xfe\x80,\xc3(,1\n",
    "a cell beyond the csv module's bounds": b"150," + b"1" * 200_000 + b",1,1,1,1,1,\n",
    "another head": b"step,words,minutes,loss,visual,cross,ctc,validation_visual\n",
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_log_is_read_drawn_and_mended(tmp_path, damage):
    log = tmp_path / "log.csv"
    log.write_bytes((HEAD + ROWS).encode() + DAMAGE[damage])
    assert [row["step"] for row in read_rows(log)][:2] == [50, 100]
    chart(log, tmp_path / "log.png")
    columns = HEAD.strip().split(",")
    drop_rows_after(log, 100, columns)
    with log.open("a", newline="") as file:
        csv.DictWriter(file, columns).writerow({"step": 101, "words": 1, "minutes": 2})
    assert [row["step"] for row in read_rows(log)] == [50, 100, 101]


def test_damaged_rows_that_are_dropped_are_counted(words, tmp_path, small_is_tiny, capsys):
    assert train(words, tmp_path / "run", "--steps", "1") == 0
    log = tmp_path / "run" / "log.csv"
    log.write_bytes(log.read_bytes() + b"2,8\n" + b"\0" * 40)
    assert train(words, tmp_path / "run", "--steps", "2") == 0
    assert f"{log}: 2 damaged rows dropped" in capsys.readouterr().err
    assert [row["step"] for row in read_rows(log)] == [1, 2]
