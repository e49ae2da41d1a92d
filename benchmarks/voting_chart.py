"""Voting as a picture: the rules beside each other, and how far the voted word's confidence is true."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clip4str.benchmarks.calibration_figures import BINS
from clip4str.core.charts import BLUE, GREY, ORANGE, PALE, new_figure, save, tidy

_SOURCE = (
    "left: 95 % intervals of the difference to the first rule. right: bars are 95 % intervals; words after two, four\n"
    "and all reads. Measured by benchmarks/voting.py"
)


def save_chart(figures: dict[str, Any], tracks: int, frames: int, path: Path) -> None:
    """figures: the report of voting.py. Needs matplotlib: see check_chart."""
    below = f"{tracks:,} words in {frames} damaged frames each; single frames are right in {_alone(figures):.1f} %"
    figure = new_figure(11, 4.6, "What is a vote over frames worth, and how sure is it?", below, _SOURCE, legend=False)
    bars, curve = figure.subplots(1, 2, width_ratios=(1.35, 1))
    rows = [row for row in figures["rules"] if row["rule"] != "each frame alone"][::-1]
    base = figures["rules"][0]["percent"]
    for place, row in enumerate(rows):
        first = row["rule"] == figures["rules"][0]["rule"]
        bars.barh(place, row["percent"], color=BLUE if first else PALE, height=0.66)
        if not first:
            reach = [[row["difference"] - row["low"]], [row["high"] - row["difference"]]]
            bars.errorbar(base + row["difference"], place, xerr=reach, ecolor=ORANGE, elinewidth=1.4, capsize=2.5)
        bars.text(0.6, place, f"{row['rule']}: {row['percent']:.1f} %", va="center", fontsize=8.5,
                  color="white" if first else "black")  # fmt: skip
    bars.set_yticks([])
    bars.set_xlabel("words right, %")
    bins = [row for row in figures["bins"] if row["words"] >= 5]
    x, y = [row["confidence"] for row in bins], [row["percent"] for row in bins]
    reach = [[row["percent"] - row["low"] for row in bins], [row["high"] - row["percent"] for row in bins]]
    curve.plot((0, 100), (0, 100), color=GREY, linewidth=1, linestyle="--")
    curve.errorbar(x, y, reach, color=BLUE, ecolor=BLUE, elinewidth=0.8, marker="o", markersize=4, linewidth=1.6)
    curve.set(xlim=(0, 100), ylim=(0, 100), ylabel="words right, %")
    curve.set_xlabel(f"confidence of the voted word, %, in {BINS} bins")
    curve.text(4, 93, f"expected calibration error {100 * figures['calibration']['ece']:.1f} %", fontsize=9)
    for axes, grid in ((bars, "x"), (curve, "both")):
        tidy(axes, grid)
    save(figure, path)


def _alone(figures: dict[str, Any]) -> float:
    return next(row["percent"] for row in figures["rules"] if row["rule"] == "each frame alone")
