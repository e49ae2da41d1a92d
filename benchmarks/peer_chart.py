"""Accuracy against time as a picture: a point a recogniser, as large as its files, a panel a set and one for all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

_COLOURS = ("#2f5f93", "#d9812b", "#b5485d", "#5f9e64", "#7d6ca8", "#8a8a8a", "#3a9ca6", "#a8743a")  # by package
_PER_MB = 8.0  # square points of area a megabyte
_MOST = 3  # panels of single sets; with more sets only the one for all is drawn


def save_chart(rows: Sequence[dict[str, Any]], path: Path, machine: str) -> None:
    """rows: as peer_turns.report gives them. Points of one set of files are joined. Needs matplotlib."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    sets = list(rows[0]["accuracy"])
    panels = [(name, [row["accuracy"][name] for row in rows]) for name in sets] if len(sets) <= _MOST else []
    if len(sets) > 1:
        panels.append(("all sets", [row["combined"] for row in rows]))
    figure = Figure(figsize=(1.2 + 4.9 * len(panels), 5.6), dpi=150, layout=ConstrainedLayoutEngine(wspace=0.04))
    canvas = FigureCanvasAgg(figure)
    grid = figure.subplots(1, len(panels), squeeze=False, sharey=True)[0]
    every = [value for _, values in panels for value in values]
    reach = min(value["low"] for value in every), max(value["high"] for value in every)
    for axes, (name, values) in zip(grid, panels):
        _panel(axes, rows, values, reach)
        axes.set_title(f"{name}, {values[0]['words']} words", fontsize=11, loc="left")
    grid[0].set_ylabel("word accuracy, percent")
    figure.supxlabel(
        f"milliseconds a word on {machine}\n"
        "point: median over all words, area: size on disk; bars: quartiles of the time, 95 % interval of the accuracy",
        fontsize=10,
    )
    canvas.draw()  # places everything, so that the labels' room is known
    for axes, (_, values) in zip(grid, panels):
        _labels(axes, rows, values)
    figure.savefig(path)


def _panel(
    axes: Any, rows: Sequence[dict[str, Any]], values: Sequence[dict[str, float]], reach: tuple[float, float]
) -> None:
    colours = _colours(rows)
    for files in {(row["package"], *row["files"]): None for row in rows}:
        same = [k for k, row in enumerate(rows) if (row["package"], *row["files"]) == files]
        same.sort(key=lambda k: rows[k]["latency_ms"]["median"])
        medians = [rows[k]["latency_ms"]["median"] for k in same]
        axes.plot(medians, [values[k]["percent"] for k in same], color=colours[same[0]], linewidth=1.2, zorder=1)
    for row, value, colour in zip(rows, values, colours):
        ms, percent = row["latency_ms"], value["percent"]
        bars = {
            "xerr": [[ms["median"] - ms["quartile_1"]], [ms["quartile_3"] - ms["median"]]],
            "yerr": [[percent - value["low"]], [value["high"] - percent]],
        }
        axes.errorbar(ms["median"], percent, **bars, fmt="none", ecolor=colour, elinewidth=0.8, alpha=0.55, zorder=2)
        area = _PER_MB * row["bytes"] / 1e6
        axes.scatter(ms["median"], percent, s=area, color=colour, edgecolor="white", linewidth=0.8, zorder=3)
    axes.set_xscale("log")
    times = [row["latency_ms"] for row in rows]
    low, high = min(ms["quartile_1"] for ms in times), max(ms["quartile_3"] for ms in times)
    axes.set_xlim(low / 1.5, high * 1.5)
    ticks = [step * 10.0**power for power in range(-3, 6) for step in (1, 2, 5)]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.set_xlim(low / 1.5, high * 1.5)
    room = max(0.08 * (reach[1] - reach[0]), 1.5)
    axes.set_ylim(reach[0] - room, min(reach[1] + room, 101))
    axes.grid(color="#e8e8e8", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    for edge in ("top", "right"):
        axes.spines[edge].set_visible(False)


def _labels(axes: Any, rows: Sequence[dict[str, Any]], values: Sequence[dict[str, float]]) -> None:
    """Each point's name beside it, on the first side where nothing lies in the way."""
    from matplotlib.patheffects import withStroke
    from matplotlib.transforms import Bbox

    renderer, scale, inside = axes.figure.canvas.get_renderer(), axes.figure.dpi / 72, axes.get_window_extent()
    taken = []
    for row, value in zip(rows, values):
        ms, radius = row["latency_ms"], _radius(row) * scale
        x, y = axes.transData.transform((ms["median"], value["percent"]))
        left, bottom = axes.transData.transform((ms["quartile_1"], value["low"]))
        right, top = axes.transData.transform((ms["quartile_3"], value["high"]))
        taken += [
            Bbox.from_extents(x - radius, y - radius, x + radius, y + radius),
            Bbox.from_extents(left, y - scale, right, y + scale), Bbox.from_extents(x - scale, bottom, x + scale, top),
        ]  # fmt: skip
    for row, value, colour in zip(rows, values, _colours(rows)):
        tried: list[tuple[float, int, Any, Any]] = []
        for dx, dy, across, down in _sides(_radius(row) + 2):
            label = axes.annotate(
                row["name"], (row["latency_ms"]["median"], value["percent"]), (dx, dy), textcoords="offset points",
                ha=across, va=down, fontsize=8, color=colour, zorder=4,
                path_effects=[withStroke(linewidth=2, foreground="white")],
                fontweight="bold" if row["package"].startswith("clip4str") else "normal",
            )  # fmt: skip
            box = label.get_window_extent(renderer)
            outside = max(inside.x0 - box.x0, 0) + max(box.x1 - inside.x1, 0)
            outside += max(inside.y0 - box.y0, 0) + max(box.y1 - inside.y1, 0)
            tried.append((sum(_common(box, other) for other in taken) + outside * box.height, len(tried), label, box))
        best = min(tried, key=lambda one: one[:2])
        for one in tried:
            if one is not best:
                one[2].remove()
        taken.append(best[3])


def _sides(far: float) -> list[tuple[float, float, str, str]]:
    """Places around a point, the better first: offset in points, and which edge of the label is put there."""
    near = [(far, 0.0, "left", "center"), (-far, 0.0, "right", "center")]
    near += [(0.0, -far, "center", "top"), (0.0, far, "center", "bottom")]
    near += [(x, y, "left" if x > 0 else "right", "top" if y < 0 else "bottom")
             for y in (-far / 2, far / 2) for x in (far, -far)]  # fmt: skip
    return near + [(x + (14 if x > 0 else -14) * (x != 0), y + (12 if y > 0 else -12) * (y != 0), across, down)
                   for x, y, across, down in near]  # fmt: skip


def _colours(rows: Sequence[dict[str, Any]]) -> list[str]:
    packages = list(dict.fromkeys(row["package"] for row in rows))
    return [_COLOURS[packages.index(row["package"]) % len(_COLOURS)] for row in rows]


def _common(a: Any, b: Any) -> float:
    return max(min(a.x1, b.x1) - max(a.x0, b.x0), 0) * max(min(a.y1, b.y1) - max(a.y0, b.y0), 0)


def _radius(row: dict[str, Any]) -> float:
    """In points."""
    return (_PER_MB * row["bytes"] / 1e6) ** 0.5 / 2
