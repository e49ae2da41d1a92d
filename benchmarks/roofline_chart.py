"""The roofline's predictions as a picture: milliseconds a word on every device, a panel a network and batch."""

from __future__ import annotations

import io
import math
from pathlib import Path
from typing import Any

from clip4str.benchmarks.latency_chart import check_chart
from clip4str.core.output_files import write_whole

__all__ = ["check_chart", "save_chart"]

_LOOKS = {"fp16": ("#35618f", "float16"), "int8": ("#e28a2b", "int8 in the towers, float16 elsewhere")}
_TITLES = {"small": "small", "b16": "B/16", "b32": "B/32", "l14": "L/14", "h14": "H/14"}


def save_chart(report: dict[str, Any], path: Path) -> None:
    """Write a PNG, SVG or PDF, as the suffix says. Needs matplotlib: see check_chart. Raises UsageError."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows = report["rows"]
    networks, batches = (list(dict.fromkeys(row[key] for row in rows)) for key in ("network", "batch"))
    devices = list(report["devices"])
    size = 1.6 + 5.2 * len(batches), 1.9 + len(networks) * (0.6 + 0.45 * len(devices))
    figure = Figure(figsize=size, dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(networks), len(batches), squeeze=False, sharey=True)
    for name, line in zip(networks, grid):
        for batch, axes in zip(batches, line):
            _panel(axes, [row for row in rows if (row["network"], row["batch"]) == (name, batch)], devices)
            axes.set_title(f"{_TITLES.get(name, name)}, batch {batch}", fontsize=11, loc="left")
        line[0].set_yticks(range(len(devices)), [report["devices"][key]["name"] for key in devices])
    grid[0][0].invert_yaxis()
    for axes in grid[-1]:
        axes.set_xlabel("milliseconds a word; pale: host, and copies to the GPU")
    handles = dict(zip(*reversed(grid[0][0].get_legend_handles_labels())))
    figure.legend(list(handles.values()), list(handles), loc="outside lower center", ncols=3, frameon=False, fontsize=9)
    figure.suptitle(f"TensorRT engines: {report['status']}", x=0.01, ha="left", fontsize=12, fontweight="bold")
    content = io.BytesIO()
    figure.savefig(content, format=path.suffix[1:].lower())
    write_whole(path, content.getvalue())


def _panel(axes: Any, rows: list[dict[str, Any]], devices: list[str]) -> None:
    for row in rows:
        place = devices.index(row["device"]) + 0.36 * (list(_LOOKS).index(row["precision"]) - 0.5)
        gpu, host = (row[key] / row["batch"] / 1000 for key in ("gpu_us", "host_us"))
        colour, label = _LOOKS[row["precision"]]
        axes.barh(place, gpu, height=0.34, color=colour, label=label)
        axes.barh(place, host, left=gpu, height=0.34, color=colour, alpha=0.35)
        axes.text(gpu + host, place, f" {_short(gpu + host)}", va="center", fontsize=7.5)
    axes.set_xlim(0, 1.1 * max(row["total_us"] / row["batch"] / 1000 for row in rows))
    axes.grid(axis="x", color="#e4e4e4", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.tick_params(length=0)
    for edge in ("top", "right", "left"):
        axes.spines[edge].set_visible(False)


def _short(ms: float) -> str:
    """Two digits, or all before the point: 0.077, 1.0, 17."""
    return f"{ms:.{max(0, 1 - math.floor(math.log10(ms)))}f}"
