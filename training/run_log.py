"""A run's log.csv: read whatever a power cut has left of it, cut back to a checkpoint, drawn."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clip4str.core import charts
from clip4str.core.atomic_files import replaced

MARKED = 40  # points of a curve up to which each is marked: one alone would not be seen
_MOST_STEPS = 10**15
_COLOURS = {"visual": charts.BLUE, "cross": charts.ORANGE, "ctc": charts.GREEN}
_LABELS = {"visual": "visual decoder", "cross": "cross-modal decoder", "ctc": "auxiliary CTC head"}


def read_rows(path: Path) -> list[dict[str, float]]:
    """Rows of numbers; what is empty or none is left out, and a row that is just being written."""
    if not path.exists():
        return []
    rows = ({k: number for k, v in row.items() if (number := _number(v)) is not None} for row in _read(path)[0])
    return [row for row in rows if {"step", "words", "minutes"} <= row.keys()]


def drop_rows_after(path: Path, step: int, columns: Sequence[str]) -> int:
    """A resumed run repeats the steps after its checkpoint, and may validate on other sets than before. A power cut may
    leave a part of a row, or nonsense: how many such rows were dropped."""
    if not path.exists():
        return 0
    rows, tail = _read(path)
    whole = [row for row in rows if None not in row and None not in row.values() and _step(row) is not None]
    kept = [row for row in whole if (_step(row) or 0) <= step]
    if tail or len(kept) != len(rows) or not rows or list(rows[0]) != list(columns):
        with replaced(path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns, restval="", extrasaction="ignore")
            writer.writeheader()
            writer.writerows(kept)
    return len(rows) - len(whole) + bool(tail)


def _read(path: Path) -> tuple[list[dict[str, str]], str]:
    """Rows, and what is still being written."""
    text = path.read_text(encoding="utf-8", errors="replace").replace("\0", "\ufffd")
    rows: list[dict[str, str]] = []
    whole, _, tail = text.rpartition("\n")
    try:  # lines are those of the file, whatever quotes nonsense opens
        for row in csv.DictReader(whole.split("\n"), quoting=csv.QUOTE_NONE):
            rows.append(row)
    except csv.Error:  # a field beyond all bounds
        tail = tail or "what follows"
    return rows, tail


def _number(text: str | None) -> float | None:
    try:
        number = float(text) if text else math.nan
    except (ValueError, TypeError):
        return None
    return number if math.isfinite(number) else None


def _step(row: dict[str, str]) -> int | None:
    step = _number(row.get("step"))
    return int(step) if step is not None and step == int(step) and 0 <= step < _MOST_STEPS else None


def chart(log: Path, target: Path) -> None:
    """Losses and held-out word accuracy over the words seen. Raises UsageError if it cannot be written."""
    rows = read_rows(log)
    below = f"{rows[-1]['words']:,.0f} words seen in {_minutes(rows[-1]['minutes'])}" if rows else "no step yet"
    source = "losses are of the training words, averaged between two rows of log.csv; validation reads held-out words"
    figure = charts.new_figure(10, 4.8, "Training", below, source, legend=False)
    left, right = figure.subplots(1, 2)
    for name, label in _LABELS.items():
        _curve(left, rows, name, label, 1.0)
        if name != "ctc":
            _curve(right, rows, f"validation_{name}", f"{label}'s words", 100.0)
    lowest, highest = _span(left)
    if highest > 3 * lowest > 0:
        charts.logarithmic(left, "y")  # the first steps would flatten all that follows
    left.set(title="Loss", xlabel="training words seen", ylabel="loss" + ", logarithmic" * (left.get_yscale() == "log"))
    right.set(title="Held-out words read right", xlabel="training words seen", ylabel="words right, %")
    if not right.lines:
        right.text(0.5, 0.5, "not validated yet", transform=right.transAxes, ha="center", color=charts.GREY)
    lowest, highest = _span(right)
    right.set_ylim(max(0.0, lowest - 5), min(100.0, highest + 5)) if right.lines else right.set_ylim(0, 100)
    last = max((row["words"] for row in rows), default=0.0)
    for axes, corner in ((left, "upper right"), (right, "lower right")):
        _words_axis(axes, last)
        if axes.lines:
            axes.legend(loc=corner, frameon=False, fontsize=9)
    charts.save(figure, target)


def _curve(axes: Any, rows: Sequence[dict[str, float]], name: str, label: str, scale: float) -> None:
    points = [(row["words"], scale * row[name]) for row in rows if name in row]
    if points:
        marker = "." if len(points) <= MARKED else ""
        colour = _COLOURS[name.removeprefix("validation_")]
        axes.plot(*zip(*points), label=label, color=colour, linewidth=1.2, marker=marker)


def _span(axes: Any) -> tuple[float, float]:
    """The lowest and the highest value drawn."""
    values = [float(value) for line in axes.lines for value in line.get_ydata()]
    return min(values, default=0.0), max(values, default=0.0)


def _words_axis(axes: Any, last: float) -> None:
    """From the first word to the last seen, whole ones."""
    from matplotlib.ticker import EngFormatter, MaxNLocator

    charts.tidy(axes)
    axes.set_xlim(0, 1.04 * max(last, 1.0))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axes.xaxis.set_major_formatter(EngFormatter(sep=""))


def _minutes(minutes: float) -> str:
    return f"{minutes:.0f} minutes" if minutes >= 10 else f"{60 * minutes:.0f} seconds"
