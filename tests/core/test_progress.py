"""Progress on a terminal and in a log."""

from __future__ import annotations

import io
import sys

import pytest

from clip4str.core import progress as module
from clip4str.core.progress import Progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


@pytest.fixture
def clock(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def run(clock, steps, seconds, **how):
    with Progress(steps, "comparing words", "images", **how) as progress:
        for _ in range(steps):
            clock[0] += seconds
            progress.update()


def test_a_log_gets_plain_lines_now_and_then(clock, monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    run(clock, steps=40, seconds=2)
    lines = sys.stderr.getvalue().splitlines()
    assert lines == [
        "comparing words: 5 of 40 images, 10 s",
        "comparing words: 20 of 40 images, 40 s",
        "comparing words: 35 of 40 images, 70 s",
    ]
    assert "\r" not in sys.stderr.getvalue() and "\x1b" not in sys.stderr.getvalue()


def test_a_step_of_unknown_length_says_what_is_done(clock, monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    with Progress(None, "reading", "rows") as progress:
        clock[0] += 11
        progress.update(70)
    assert sys.stderr.getvalue() == "reading: 70 rows, 11 s\n"


def test_a_short_step_and_a_silent_one_leave_a_log_alone(clock, monkeypatch):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    run(clock, steps=8, seconds=1)
    run(clock, steps=100, seconds=10, silent=True)
    assert sys.stderr.getvalue() == ""


def test_a_terminal_gets_a_bar_that_goes_away(monkeypatch):
    monkeypatch.setattr(sys, "stderr", Terminal())
    with Progress(4, "comparing words", "images") as progress:
        for _ in range(4):
            progress.update()
    assert "comparing words" in sys.stderr.getvalue() and "\r" in sys.stderr.getvalue()


def test_no_stderr_at_all(clock, monkeypatch):
    """Programs without a console have none."""
    monkeypatch.setattr(sys, "stderr", None)
    run(clock, steps=4, seconds=100)
