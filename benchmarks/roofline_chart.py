"""Chart of the roofline's predictions: milliseconds a word on every device, a panel for each network and batch."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from clip4str.core.charts import BLUE, GREEN, ORANGE, add_legend, new_figure, save, tidy
from clip4str.model.sizes import TITLES

_LOOKS = {
    "fp16": (BLUE, "float16"),
    "int8": (ORANGE, "int8 in the towers, float16 elsewhere"),
    "fp8": (GREEN, "fp8 in the towers, float16 elsewhere"),
}
_SOURCE = (
    "full colour: time on the GPU; pale end of a bar: on the host, and copies to the GPU. Worked out from arithmetic,\n"
    "bytes and launches by benchmarks/roofline.py; no such device has been measured"
)


def save_chart(report: dict[str, Any], path: Path) -> None:
    """Write a PNG, SVG or PDF, by the suffix. Needs matplotlib: see check_chart. Raises UsageError."""
    rows = report["rows"]
    networks, batches = (list(dict.fromkeys(row[key] for row in rows)) for key in ("network", "batch"))
    devices = list(report["devices"])
    width, height = 1.6 + 5.2 * len(batches), 1.6 + len(networks) * (0.8 + 0.72 * len(devices))
    title = "Time to read a word with TensorRT engines"
    figure = new_figure(width, height, title, report["status"], _SOURCE)
    grid = figure.subplots(len(networks), len(batches), squeeze=False, sharey=True)
    for name, line in zip(networks, grid):
        for batch, axes in zip(batches, line):
            _panel(axes, [row for row in rows if (row["network"], row["batch"]) == (name, batch)], devices)
            words = "one word at a time" if batch == 1 else f"batches of {batch}"
            axes.set_title(f"{TITLES.get(name, name)}, {words}", fontsize=11, loc="left")
        line[0].set_yticks(range(len(devices)), [report["devices"][key]["name"] for key in devices])
    grid[0][0].invert_yaxis()
    add_legend(figure, _SOURCE)
    save(figure, path)


def _panel(axes: Any, rows: list[dict[str, Any]], devices: list[str]) -> None:
    for row in rows:
        place = devices.index(row["device"]) + 0.27 * (list(_LOOKS).index(row["precision"]) - 1)
        gpu, host = (row[key] / row["batch"] / 1000 for key in ("gpu_us", "host_us"))
        colour, label = _LOOKS[row["precision"]]
        axes.barh(place, gpu, height=0.25, color=colour, label=label)
        axes.barh(place, host, left=gpu, height=0.25, color=colour, alpha=0.35)
        axes.text(gpu + host, place, f" {_short(gpu + host)} ms", va="center", fontsize=7.5)
    axes.set_xlim(0, 1.14 * max(row["total_us"] / row["batch"] / 1000 for row in rows))
    axes.set_xlabel("milliseconds a word")
    tidy(axes, "x")


def _short(ms: float) -> str:
    """Two significant digits, or all before the point: 0.077, 1.0, 17."""
    return f"{ms:.{max(0, 1 - math.floor(math.log10(ms)))}f}"
