"""The latency report as a picture: milliseconds a word, stage by stage, both sides at every batch size."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clip4str.benchmarks.latency_sides import STAGES
from clip4str.runtime import UsageError

_LOOKS = {  # stage: (colour, label)
    "prepare": ("#c7c7c7", "image preparation"),
    "image": ("#35618f", "image tower"),
    "visual": ("#e28a2b", "visual decoder"),
    "text": ("#6aa56e", "text tower"),
    "cross": ("#b5485d", "cross-modal decoder"),
    "host": ("#8a7f9e", "between stages"),
}
_SIDES = {"published": "published", "bundle": "clip4str"}


def save_chart(reports: Sequence[dict[str, Any]], path: Path, title: str) -> None:
    """Write a PNG (or whatever the suffix says). Raises UsageError without matplotlib."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise UsageError("a chart needs matplotlib: pip install 'clip4str[bench]'") from None
    sides = [side for side in _SIDES if side in reports[0]]
    bars = [(r, side) for r in reports for side in sides]
    figure = Figure(figsize=(9, 1.5 + 0.45 * len(bars) + 0.25 * len(reports)), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots()
    places = [i * (len(sides) + 0.6) + k for i in range(len(reports)) for k in range(len(sides))]
    longest = max(r[side]["median"] / r["batch"] for r, side in bars)
    for place, (report, side) in zip(places, bars):
        _bar(axes, place, report, side, longest)
    axes.set_yticks(places, [f"batch {r['batch']}   {_SIDES[side]}" for r, side in bars])
    axes.invert_yaxis()
    axes.set_xlim(0, longest * 1.22)
    axes.set_xlabel("milliseconds a word, median")
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
    left, batch = 0.0, report["batch"]
    for stage in STAGES:
        ms = report[side]["stages"][stage]["ms"] / batch
        colour, label = _LOOKS[stage]
        axes.barh(place, ms, left=left, height=0.82, color=colour, label=label)
        if ms > 0.06 * longest:
            axes.text(left + ms / 2, place, f"{ms:.1f}", ha="center", va="center", color="white", fontsize=8)
        left += ms
    text = f" {report[side]['median'] / batch:.1f} ms"
    if side == "bundle" and "ratio" in report:
        text += f"   {report['ratio']['of_medians']:.2f}x as fast"
    axes.text(left, place, text, ha="left", va="center", fontsize=9, fontweight="bold" if side == "bundle" else None)
