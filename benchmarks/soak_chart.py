"""A long run as a picture: memory, latency, open handles and threads, minute by minute."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from clip4str.benchmarks.soak_figures import WARM_UP
from clip4str.core.charts import BLUE, GREEN, GREY, ORANGE, PALE, new_figure, save, tidy

_SOURCE = (
    "memory: while no thread reads; line: least squares of what malloc has given out, after the warm-up (shaded).\n"
    "latency: of calls with one picture, while the other threads read. Measured by benchmarks/soak.py"
)


def save_chart(report: dict[str, Any], path: Path) -> None:
    """report: as soak.py writes it. Needs matplotlib: see check_chart."""
    samples, machine = report["samples"], report["machine"]
    below = (
        f"{report['bundle']}, {report['readers']} threads over one Recognizer, {report['pictures']:,} pictures, "
        f"{len(report['changed'])} words changed, {report['opened']} recognisers opened and closed\n{machine['cpu']}, "
        f"{machine['cores']} cores"
    )
    figure = new_figure(9.6, 7.4, f"{report['minutes']:.0f} minutes of reading", below, _SOURCE, legend=False)
    memory, latency, handles = figure.subplots(3, 1, sharex=True, height_ratios=(3, 3, 1.6))
    minutes = np.array([sample["minutes"] for sample in samples])

    def of(name: str) -> np.ndarray:
        return np.array([np.nan if sample[name] is None else sample[name] for sample in samples], float)

    memory.plot(minutes, of("rss_mb"), color=BLUE, linewidth=1.2, label="resident")
    name = "allocated_mb" if "memory" in report else "rss_mb"
    if name == "allocated_mb":
        memory.plot(minutes, of(name), color=GREEN, linewidth=1.2, label="allocated")
    if "resident" in report:
        found, rest = report.get("memory", report["resident"]), minutes[int(WARM_UP * len(minutes)) :]
        middle = np.median(of(name)[-len(rest) :])
        line = middle + found["slope_mb_per_hour"] * (rest - rest.mean()) / 60
        label = f"{found['slope_mb_per_hour']:+.2f} MB an hour ({found['low']:+.2f} to {found['high']:+.2f})"
        memory.plot(rest, line, color=ORANGE, linewidth=1.6, linestyle="--", label=label)
    memory.set_ylim(0, 1.25 * np.nanmax(of("rss_mb")))
    memory.set_ylabel("memory, MB")
    for name, colour, label in (("p99_ms", ORANGE, "99th percentile"), ("p50_ms", BLUE, "median")):
        there = np.isfinite(of(name))
        latency.plot(minutes[there], of(name)[there], color=colour, linewidth=1.2, label=label)
    latency.set_ylim(0, None)
    latency.set_ylabel("milliseconds a call")
    handles.plot(minutes, of("handles"), color=GREEN, linewidth=1.2, label="open handles")
    handles.plot(minutes, of("threads"), color=GREY, linewidth=1.2, label="threads")
    handles.set_ylim(0, 1.5 * max(np.nanmax(of("handles")), np.nanmax(of("threads"))))
    handles.set_ylabel("count")
    handles.set_xlabel("minutes")
    handles.set_xlim(0, max(minutes[-1], 1e-3))
    for axes in (memory, latency, handles):
        axes.axvspan(0, WARM_UP * minutes[-1], color=PALE, alpha=0.25, linewidth=0)
        axes.legend(loc="lower right" if axes is memory else "upper right", frameon=False, fontsize=9, ncols=2)
        tidy(axes)
    save(figure, path)
