"""Latency over load as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clip4str.core.charts import BLUE, GREEN, GREY, ORANGE, add_legend, logarithmic, new_figure, save, tidy
from clip4str.core.machine_info import busy

_SOURCE = (
    "Open loop, Poisson arrivals over loopback, latency from when a request was due. The generator runs on the same "
    "cores.\nMeasured by benchmarks/serving.py"
)


def save_chart(report: dict[str, Any], path: Path) -> None:
    """report: as benchmarks/serving.py writes it. Needs matplotlib: see core.charts.check_chart."""
    points, machine = report["points"], report["machine"]
    loop, over = report["one_process"], report["overload"]
    below = (
        f"{report['bundle']} on {report['what']}, {report['instances']} instances\n"
        f"{machine['cpu']}, {machine['cores']} cores{', shared with other work: provisional' if busy(machine) else ''}"
    )
    figure = new_figure(9.0, 5.6, "Latency over load", below, _SOURCE)
    latency, batch = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1.3))
    offered = [one["offered"] for one in points]
    for name, colour, label in (("p99_ms", ORANGE, "99th percentile"), ("p50_ms", BLUE, "median")):
        latency.plot(offered, [one[name] for one in points], "o-", color=colour, linewidth=1.4, ms=4, label=label)
    latency.axhline(report["bar_ms"], color=GREY, linewidth=1, linestyle="--", label=f"{report['bar_ms']:g} ms")
    latency.axvline(loop["one_by_one"], color=GREEN, linewidth=1.2, linestyle=":", label="one process in a loop can do")
    logarithmic(latency, "y", (1, 2, 3, 5, 7))
    latency.set_ylabel("milliseconds, logarithmic")
    over_text = (
        f"at {over['offered']:.0f} a second: {over['read_a_second']:.0f} read, p99 {over['p99_ms'] or 0:.0f} ms; "
        f"{over['refused']} refused, half of them within {over['refused_p50_ms'] or 0:.0f} ms"
    )
    latency.set_title(over_text, fontsize=9, color=GREY, loc="left")
    batch.plot(offered, [one["pictures_a_batch"] for one in points], "o-", color=BLUE, linewidth=1.4, ms=4)
    batch.set_ylim(0, 1.1 * max(one["pictures_a_batch"] for one in points))
    batch.set_ylabel("pictures a batch")
    batch.set_xlabel("requests a second, one picture each")
    for axes in (latency, batch):
        axes.set_xlim(0, None)
        tidy(axes)
    add_legend(figure, _SOURCE)
    save(figure, path)
