"""Chart of accuracy against time: a point for each recogniser, as large as its files, over the words of all sets."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from clip4str.core.charts import BLUE, GREEN, GREY, ORANGE, RED, VIOLET, logarithmic, new_figure, save, tidy

_COLOURS = (BLUE, ORANGE, RED, GREEN, VIOLET, GREY, "#3a9ca6", "#a8743a")  # by package
_PER_MB = 8.0  # square points of area a megabyte
_SOURCE = (
    "point: median time and accuracy over all words; its area: size on disk (MB in brackets); bars: quartiles of the\n"
    "time, 95 % interval of the accuracy; joined: one recogniser in several settings. Measured by benchmarks/peers.py"
)


def save_chart(rows: Sequence[dict[str, Any]], path: Path, machine: str) -> None:
    """rows: as peer_turns.report gives them. Needs matplotlib."""
    sets = ", ".join(f"{name} ({value['words']})" for name, value in rows[0]["accuracy"].items())
    below = f"words of {sets}; {machine}"
    figure = new_figure(9.6, 6.4, "Accuracy against time: left is faster, up is better", below, _SOURCE, legend=False)
    axes = figure.subplots()
    _points(axes, rows)
    axes.set_ylabel("words right, %")
    axes.set_xlabel("milliseconds a word (logarithmic)")
    figure.canvas.draw()  # lays everything out, so that free room is known
    _labels(axes, rows)
    save(figure, path)


def _points(axes: Any, rows: Sequence[dict[str, Any]]) -> None:
    for line, colour in _lines(rows):
        axes.plot(*zip(*line), color=colour, linewidth=1.2, zorder=1)
    for row, colour in zip(rows, _colours(rows)):
        ms, value = row["latency_ms"], row["combined"]
        bars = {
            "xerr": [[ms["median"] - ms["quartile_1"]], [ms["quartile_3"] - ms["median"]]],
            "yerr": [[value["percent"] - value["low"]], [value["high"] - value["percent"]]],
        }
        at = ms["median"], value["percent"]
        axes.errorbar(*at, **bars, fmt="none", ecolor=colour, elinewidth=0.8, alpha=0.55, zorder=2)
        axes.scatter(*at, s=_PER_MB * row["bytes"] / 1e6, color=colour, edgecolor="white", linewidth=0.8, zorder=3)
    logarithmic(axes, "x")
    times, values = [row["latency_ms"] for row in rows], [row["combined"] for row in rows]
    axes.set_xlim(min(ms["quartile_1"] for ms in times) / 1.5, max(ms["quartile_3"] for ms in times) * 1.5)
    low, high = min(value["low"] for value in values), max(value["high"] for value in values)
    room = max(0.08 * (high - low), 1.5)
    axes.set_ylim(low - room, min(high + room, 101))
    tidy(axes)


def _lines(rows: Sequence[dict[str, Any]]) -> Iterator[tuple[list[tuple[float, float]], str]]:
    """Points of one recogniser in several settings, sorted by time, and their colour."""
    same: dict[tuple[str, ...], list[tuple[float, float]]] = {}
    colours = {}
    for row, colour in zip(rows, _colours(rows)):
        key = (row["package"], *row["files"])
        same.setdefault(key, []).append((row["latency_ms"]["median"], row["combined"]["percent"]))
        colours[key] = colour
    yield from ((sorted(line), colours[key]) for key, line in same.items())


def _labels(axes: Any, rows: Sequence[dict[str, Any]]) -> None:
    """Places each point's name nearby where there is room, with a line that leads to the point."""
    from matplotlib.transforms import Bbox

    renderer, dot, inside = axes.figure.canvas.get_renderer(), axes.figure.dpi / 72, axes.get_window_extent()
    place = axes.transData.transform
    taken, lines = [], []
    for row in rows:
        ms, value, radius = row["latency_ms"], row["combined"], _radius(row) * dot
        x, y = place((ms["median"], value["percent"]))
        taken.append(Bbox.from_extents(x - radius, y - radius, x + radius, y + radius))
        lines.append((place((ms["quartile_1"], value["percent"])), place((ms["quartile_3"], value["percent"]))))
        lines.append((place((ms["median"], value["low"])), place((ms["median"], value["high"]))))
    for line, _ in _lines(rows):
        lines += [(place(a), place(b)) for a, b in zip(line, line[1:])]
    for row, colour in zip(rows, _colours(rows)):
        at = row["latency_ms"]["median"], row["combined"]["percent"]
        start = place(at)
        label = axes.annotate(
            f"{row['name']} ({row['bytes'] / 1e6:.0f})", at, (0, 0), textcoords="offset points", ha="center",
            va="center", fontsize=8.5, color=colour, zorder=4, arrowprops={"arrowstyle": "-", "color": GREY, "lw": 0.7},
            fontweight="bold" if row["package"].startswith("clip4str") else "normal",
        )  # fmt: skip
        box = label.get_window_extent(renderer).padded(2 * dot)
        tried = []
        for dx, dy in _offsets(_radius(row) * dot, box.width, box.height, dot):
            moved, leader = box.translated(dx, dy), (start, (start[0] + dx, start[1] + dy))
            cost = sum(_common(moved, other) for other in taken)
            cost += 40 * dot * sum(_meet(line, moved) for line in lines)
            cost += 90 * dot * sum(_meet(leader, other) for other in taken if not other.contains(*start))
            cost += 1e6 * (moved.x0 < inside.x0 or moved.x1 > inside.x1 or moved.y0 < inside.y0 or moved.y1 > inside.y1)
            tried.append((cost + math.hypot(dx, dy), dx, dy, moved, leader))
        _, dx, dy, moved, leader = min(tried, key=lambda one: one[:3])
        label.set_position((dx / dot, dy / dot))
        taken.append(moved)
        lines.append(leader)


def _offsets(radius: float, width: float, height: float, dot: float) -> Iterator[tuple[float, float]]:
    """Places to try for a label, in pixels from its point: around the point at growing distances, never straight up or
    down, where the line would cover the error bars."""
    for far in range(4, 90, 8):
        for turn in range(24):
            x, y = math.cos(math.tau * (turn + 0.5) / 24), math.sin(math.tau * (turn + 0.5) / 24)
            yield x * (radius + far * dot + width / 2), y * (radius + far * dot + height / 2)


def _meet(line: Sequence[Any], box: Any) -> bool:
    (x0, y0), (x1, y1) = line
    return any(box.contains(x0 + (x1 - x0) * k / 32, y0 + (y1 - y0) * k / 32) for k in range(33))


def _common(a: Any, b: Any) -> float:
    return max(min(a.x1, b.x1) - max(a.x0, b.x0), 0) * max(min(a.y1, b.y1) - max(a.y0, b.y0), 0)


def _colours(rows: Sequence[dict[str, Any]]) -> list[str]:
    packages = list(dict.fromkeys(row["package"] for row in rows))
    return [_COLOURS[packages.index(row["package"]) % len(_COLOURS)] for row in rows]


def _radius(row: dict[str, Any]) -> float:
    """In points."""
    return (_PER_MB * row["bytes"] / 1e6) ** 0.5 / 2
