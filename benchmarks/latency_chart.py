"""Chart of the latency report: milliseconds a word, stage by stage, both sides at every batch size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clip4str.benchmarks.latency_sides import STAGES
from clip4str.core.charts import BLUE, GREEN, GREY, ORANGE, PALE, RED, VIOLET, add_legend, new_figure, save, tidy

_LOOKS = {  # stage: (colour, label)
    "prepare": (PALE, "image preparation"),
    "image": (BLUE, "image tower"),
    "visual": (ORANGE, "visual decoder"),
    "text": (GREEN, "text tower"),
    "cross": (RED, "cross-modal decoder"),
    "program": (GREY, "whole program at once"),
    "host": (VIOLET, "between stages"),
}
_SIDES = {"published": "published way", "bundle": "clip4str"}
_SOURCE = (
    "length of a bar: median of image in to word out, shared among the stages as their own medians are.\n"
    "published way: eager PyTorch, step by step. Measured by clip4str bench, both sides taking turns"
)


def save_chart(reports: Sequence[dict[str, Any]], path: Path, below: str) -> None:
    """below: what was timed, and where. Needs matplotlib: see check_chart."""
    sides = [side for side in _SIDES if side in reports[0]]
    bars = [(r, side) for r in reports for side in sides]
    height = 2.1 + 0.4 * len(bars) + 0.25 * len(reports)
    figure = new_figure(9.6, height, "Time to read a word", below, _SOURCE)
    axes = figure.subplots()
    places = [i * (len(sides) + 0.6) + k for i in range(len(reports)) for k in range(len(sides))]
    longest = max(r[side]["median"] / r["batch"] for r, side in bars)
    for place, (report, side) in zip(places, bars):
        _bar(axes, place, report, side, longest)
    heads = [f"batch of {r['batch']}    " if side == sides[0] else "" for r, side in bars]
    axes.set_yticks(places, [f"{head}{_SIDES[side]}" for head, (_, side) in zip(heads, bars)])
    axes.invert_yaxis()
    axes.set_xlim(0, longest * 1.22)
    axes.set_xlabel("milliseconds a word")
    tidy(axes, "x")
    add_legend(figure, _SOURCE)
    save(figure, path)


def _bar(axes: Any, place: float, report: dict[str, Any], side: str, longest: float) -> None:
    """One bar, as long as the median. The stages' medians, which need not add up to it, are scaled to share it."""
    left, batch = 0.0, report["batch"]
    whole, stages = report[side]["median"] / batch, report[side]["stages"]
    scale = whole / sum(stages[stage]["ms"] for stage in STAGES if stage in stages)
    for stage in STAGES:
        if stage not in stages:
            continue
        ms = stages[stage]["ms"] * scale
        colour, label = _LOOKS[stage]
        axes.barh(place, ms, left=left, height=0.82, color=colour, label=label)
        if ms > 0.03 * longest:
            ink = "black" if stage == "prepare" else "white"
            axes.text(left + ms / 2, place, f"{ms:.1f}", ha="center", va="center", color=ink, fontsize=8)
        left += ms
    text = f" {whole:.1f} ms"
    if side == "bundle" and "ratio" in report:
        text += f"   {report['ratio']['of_medians']:.2f} times as fast"
    axes.text(left, place, text, ha="left", va="center", fontsize=9, fontweight="bold" if side == "bundle" else None)
