"""The latency report as a picture: milliseconds a word, stage by stage, both sides at every batch size."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clip4str.benchmarks.latency_sides import STAGES
from clip4str.core.errors import UsageError
from clip4str.core.output_files import check_output

SUFFIXES = (".png", ".svg", ".pdf")
_LOOKS = {  # stage: (colour, label)
    "prepare": ("#c7c7c7", "image preparation"),
    "image": ("#35618f", "image tower"),
    "visual": ("#e28a2b", "visual decoder"),
    "text": ("#6aa56e", "text tower"),
    "cross": ("#b5485d", "cross-modal decoder"),
    "host": ("#8a7f9e", "between stages"),
}
_SIDES = {"published": "published way", "bundle": "clip4str"}


def check_chart(path: Path | None) -> None:
    """Raises UsageError if no chart can be written there, or none can be drawn: matplotlib is missing."""
    check_output(path, SUFFIXES)
    if path is not None and importlib.util.find_spec("matplotlib") is None:
        raise UsageError("a chart needs matplotlib: pip install 'clip4str[bench]'")


def save_chart(reports: Sequence[dict[str, Any]], path: Path, title: str) -> None:
    """Write a PNG, SVG or PDF, as the suffix says. Needs matplotlib: see check_chart."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sides = [side for side in _SIDES if side in reports[0]]
    bars = [(r, side) for r in reports for side in sides]
    figure = Figure(figsize=(9, 1.5 + 0.45 * len(bars) + 0.25 * len(reports)), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    places = [i * (len(sides) + 0.6) + k for i in range(len(reports)) for k in range(len(sides))]
    longest = max(r[side]["median"] / r["batch"] for r, side in bars)
    for place, (report, side) in zip(places, bars):
        _bar(axes, place, report, side, longest)
    heads = [f"batch {r['batch']}    " if side == sides[0] else "" for r, side in bars]
    axes.set_yticks(places, [f"{head}{_SIDES[side]}" for head, (_, side) in zip(heads, bars)])
    axes.invert_yaxis()
    axes.set_xlim(0, longest * 1.22)
    axes.set_xlabel("milliseconds a word, image in to word out (median)")
    axes.grid(axis="x", color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    for edge in ("top", "right", "left"):
        axes.spines[edge].set_visible(False)
    handles, labels = axes.get_legend_handles_labels()
    unique = dict(zip(labels, handles))
    figure.legend(unique.values(), unique.keys(), loc="outside lower center", ncols=6, frameon=False, fontsize=8)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    figure.savefig(path)


def _bar(axes: Any, place: float, report: dict[str, Any], side: str, longest: float) -> None:
    """One bar, as long as the median. Medians of stages need not add up to it: they say how the stages share it."""
    left, batch = 0.0, report["batch"]
    whole, stages = report[side]["median"] / batch, report[side]["stages"]
    scale = whole / sum(stages[stage]["ms"] for stage in STAGES if stage in stages)
    for stage in STAGES:
        if stage not in stages:
            continue
        ms = stages[stage]["ms"] * scale
        colour, label = _LOOKS[stage]
        axes.barh(place, ms, left=left, height=0.82, color=colour, label=label)
        if ms > 0.06 * longest:
            ink = "black" if stage == "prepare" else "white"
            axes.text(left + ms / 2, place, f"{ms:.1f}", ha="center", va="center", color=ink, fontsize=8)
        left += ms
    text = f" {whole:.1f} ms"
    if side == "bundle" and "ratio" in report:
        text += f"   {report['ratio']['of_medians']:.2f} times as fast"
    axes.text(left, place, text, ha="left", va="center", fontsize=9, fontweight="bold" if side == "bundle" else None)
