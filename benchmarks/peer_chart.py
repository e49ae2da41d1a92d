"""Accuracy against time as a picture: a point a recogniser, as large as its files, one panel a test set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

_COLOURS = ("#2f5f93", "#d9812b", "#b5485d", "#5f9e64", "#7d6ca8", "#8a8a8a", "#3a9ca6", "#a8743a")
_MARKS = {"ours": "o", "peer": "s"}
_PER_MB = 14.0  # square points of area a megabyte


def save_chart(rows: Sequence[dict[str, Any]], path: Path, title: str, ours: int = 1) -> None:
    """rows: as peer_turns.report gives them, the first `ours` of them this package's. Needs matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    sets = list(rows[0]["accuracy"])
    panels = [(name, [row["accuracy"][name] for row in rows]) for name in sets]
    if len(sets) > 3:
        panels = [(f"all {len(sets)} sets", [row["combined"] for row in rows])]
    figure = Figure(figsize=(1.2 + 4.9 * len(panels), 5.2), dpi=150, layout="constrained")
    canvas = FigureCanvasAgg(figure)
    grid = figure.subplots(1, len(panels), squeeze=False)[0]
    for axes, (name, values) in zip(grid, panels):
        _panel(axes, rows, values, ours)
        axes.set_title(name, fontsize=11, loc="left")
    grid[0].set_ylabel("word accuracy, percent")
    figure.supxlabel("milliseconds a word (median; bars: quartiles over words)", fontsize=10)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    canvas.draw()  # places everything, so that the labels' room is known
    for axes, (_, values) in zip(grid, panels):
        _labels(axes, rows, values)
    figure.savefig(path)


def _panel(axes: Any, rows: Sequence[dict[str, Any]], values: Sequence[float], ours: int) -> None:
    for k, (row, accuracy) in enumerate(zip(rows, values)):
        ms, colour = row["latency_ms"], _COLOURS[k % len(_COLOURS)]
        spread = [[ms["median"] - ms["quartile_1"]], [ms["quartile_3"] - ms["median"]]]
        axes.errorbar(ms["median"], accuracy, xerr=spread, color=colour, elinewidth=1.2, capsize=3, zorder=2)
        axes.scatter(
            ms["median"], accuracy, s=_PER_MB * row["bytes"] / 1e6, color=colour, alpha=0.85, edgecolor="white",
            linewidth=1, marker=_MARKS["ours" if k < ours else "peer"], zorder=3,
        )  # fmt: skip
    longest = max(row["latency_ms"]["quartile_3"] for row in rows)
    low, high = min(values), max(values)
    room = max(0.25 * (high - low), 2.5)
    axes.set_xlim(0, longest * 1.25)
    axes.set_ylim(max(low - room, -5), min(high + room, 104))
    axes.grid(color="#e8e8e8", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    for edge in ("top", "right"):
        axes.spines[edge].set_visible(False)


def _labels(axes: Any, rows: Sequence[dict[str, Any]], values: Sequence[float]) -> None:
    """Name, accuracy and size beside every point, on the first side where nothing lies in the way."""
    from matplotlib.transforms import Bbox

    figure = axes.figure
    renderer, scale = figure.canvas.get_renderer(), figure.dpi / 72
    taken, inside = [], axes.get_window_extent()
    for row, accuracy in zip(rows, values):
        x, y = axes.transData.transform((row["latency_ms"]["median"], accuracy))
        radius = _radius(row) * scale
        taken.append(Bbox.from_extents(x - radius, y - radius, x + radius, y + radius))
    for k, (row, accuracy) in enumerate(zip(rows, values)):
        far = _radius(row) + 4
        text = f"{row['name']}\n{accuracy:.1f} %, {row['latency_ms']['median']:.1f} ms, {row['bytes'] / 1e6:.0f} MB"
        best = None
        for dx, dy, across, down in (
            (0, -far, "center", "top"), (0, far, "center", "bottom"), (far, 3, "left", "bottom"),
            (-far, 3, "right", "bottom"), (far, -3, "left", "top"), (-far, -3, "right", "top"),
            (0, -far - 24, "center", "top"), (0, far + 24, "center", "bottom"),
        ):  # fmt: skip
            label = axes.annotate(
                text, (row["latency_ms"]["median"], accuracy), (dx, dy), textcoords="offset points", ha=across,
                va=down, fontsize=8, color=_COLOURS[k % len(_COLOURS)], linespacing=1.2,
            )  # fmt: skip
            box = label.get_window_extent(renderer)
            outside = max(inside.x0 - box.x0, 0) + max(box.x1 - inside.x1, 0)
            outside += max(inside.y0 - box.y0, 0) + max(box.y1 - inside.y1, 0)
            covers = sum(_common(box, other) for other in taken) + outside * box.height
            if best is None or covers < best[0]:
                if best is not None:
                    best[1].remove()
                best = (covers, label, box)
            else:
                label.remove()
            if covers == 0:
                break
        if best is not None:
            taken.append(best[2])


def _common(a: Any, b: Any) -> float:
    return max(min(a.x1, b.x1) - max(a.x0, b.x0), 0) * max(min(a.y1, b.y1) - max(a.y0, b.y0), 0)


def _radius(row: dict[str, Any]) -> float:
    """In points."""
    return (_PER_MB * row["bytes"] / 1e6) ** 0.5 / 2
