"""Reliability as a picture: how often words of a confidence are right, before and after calibration, and how many."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

from clip4str.benchmarks.calibration_figures import BINS
from clip4str.core.output_files import write_whole

_LOOKS = {"before": "#d9812b", "after": "#2f5f93"}
_WIDTH = 100 / BINS  # of a bin, in percent


def save_chart(measured: dict[str, Any], temperature: float, path: Path, title: str) -> None:
    """measured: as in the report of calibration.py, with figures and bins. Needs matplotlib: see check_chart."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7.2, 7.6), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    curve, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.15))
    curve.plot((0, 100), (0, 100), color="#8a8a8a", linewidth=1, linestyle="--", label="as often as it says")
    for side, colour in _LOOKS.items():
        _curve(curve, measured["bins"][side], colour, _label(side, measured[side], temperature))
        _counts(counts, measured["bins"][side], side, colour)
    curve.set_ylabel("words right, percent")
    curve.set_ylim(0, 100)
    curve.legend(loc="upper left", frameon=False, fontsize=9)
    counts.set_yscale("log")
    counts.set_ylim(0.7, 4 * max(row["words"] for side in _LOOKS for row in measured["bins"][side]))
    counts.set_ylabel("words in the bin")
    counts.set_xlabel(f"confidence, percent, in {BINS} bins; bars: 95 % intervals")
    counts.set_xlim(0, 100)
    for axes in (curve, counts):
        axes.grid(color="#e8e8e8", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(length=0)
        for edge in ("top", "right"):
            axes.spines[edge].set_visible(False)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix[1:].lower())
    write_whole(path, content.getvalue())


def _label(side: str, figures: dict[str, float], temperature: float) -> str:
    how = "as the network says" if side == "before" else f"temperature {temperature:.3g}"
    return f"{side}, {how}: ECE {100 * figures['ece']:.1f} %"


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
        axes.text(place, row["words"], f"{row['words']}", ha="center", va="bottom", fontsize=5.5, color=colour)
