"""Reliability diagram: how often words of a given confidence are right, before and after calibration, and how many."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clip4str.benchmarks.calibration_figures import BINS
from clip4str.core.charts import BLUE, GREY, ORANGE, logarithmic, new_figure, save, tidy

_LOOKS = {"before": ORANGE, "after": BLUE}
_WIDTH = 100 / BINS  # of a bin, in percent
_SOURCE = (
    "bars: 95 % intervals. ECE, expected calibration error: how far the words right and the confidence are\n"
    "apart, averaged over the words. Measured by benchmarks/calibration.py"
)


def save_chart(measured: dict[str, Any], temperature: float, path: Path, name: str, sets: str) -> None:
    """measured: as in the report of calibration.py, with figures and bins. Needs matplotlib: see check_chart."""
    below = f"{name}, {measured['before']['words']} words of {sets}"
    figure = new_figure(7.2, 8, "How often is a word right, by its confidence?", below, _SOURCE, legend=False)
    curve, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.15))
    curve.plot((0, 100), (0, 100), color=GREY, linewidth=1, linestyle="--", label="as often as it says")
    for side, colour in _LOOKS.items():
        _curve(curve, measured["bins"][side], colour, _label(side, measured[side], temperature))
        _counts(counts, measured["bins"][side], side, colour)
    curve.set_ylabel("words right, %")
    curve.set_ylim(0, 100)
    curve.legend(loc="upper left", frameon=False, fontsize=9)
    logarithmic(counts, "y", (1,))
    counts.set_ylim(0.7, 4 * max(row["words"] for side in _LOOKS for row in measured["bins"][side]))
    counts.set_ylabel("words in the bin")
    counts.set_xlabel(f"confidence, %, in {BINS} bins")
    counts.set_xlim(0, 100)
    for axes in (curve, counts):
        tidy(axes)
    save(figure, path)


def _label(side: str, figures: dict[str, float], temperature: float) -> str:
    how = "as the network says" if side == "before" else f"temperature {temperature:.2f}"
    return f"{side} calibration, {how}: ECE {100 * figures['ece']:.1f} %"


def _curve(axes: Any, bins: list[dict[str, float]], colour: str, label: str) -> None:
    x, y = [row["confidence"] for row in bins], [row["percent"] for row in bins]
    reach = [[row["percent"] - row["low"] for row in bins], [row["high"] - row["percent"] for row in bins]]
    axes.errorbar(x, y, reach, fmt="none", ecolor=colour, elinewidth=0.8, alpha=0.5)
    axes.plot(x, y, color=colour, linewidth=1.6, marker="o", markersize=4, label=label)


def _counts(axes: Any, bins: list[dict[str, float]], side: str, colour: str) -> None:
    left = -0.5 if side == "before" else 0.0
    for row in bins:
        place = (row["bin"] + 0.5 + 0.9 * (left + 0.25)) * _WIDTH
        axes.bar(place, row["words"], width=0.43 * _WIDTH, color=colour)
        axes.text(place, row["words"], f"{row['words']}", ha="center", va="bottom", fontsize=6.5, color=colour)
