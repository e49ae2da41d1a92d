"""Half an hour of a failing camera as a picture: how soon each client was back, memory, open handles and threads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from clip4str.benchmarks.soak_figures import WARM_UP
from clip4str.core.charts import BLUE, GREEN, GREY, ORANGE, PALE, RED, new_figure, save, tidy
from clip4str.core.machine_info import busy

_SOURCE = (
    "above: seconds from the camera's being back to the first frame that was looked at; a password that was refused\n"
    "for a while is tried less and less often. At rest: no frame has come for seconds. Warm-up shaded.\n"
    "Measured by benchmarks/live_soak.py"
)
_COLOURS = {"av": BLUE, "opencv": ORANGE}
_NAMES = {"av": "PyAV", "opencv": "OpenCV"}


def save_chart(report: dict[str, Any], path: Path) -> None:
    """report: as live_soak.py writes it. Needs matplotlib: see check_chart."""
    words, machine, samples = report["words"], report["machine"], report["samples"]
    failures = {(outage["minutes"], outage["failure"]) for outage in report["outages"]}
    below = (
        f"{len(failures)} failures of {len(report['recoveries'])} kinds, {report['frames']:,} frames, {words['found']} "
        f"words found, {words['lost']} without their one end\n{report['bundle']}, {machine['cpu']}, "
        f"{machine['cores']} cores{', other work beside it' * busy(machine)}"
    )
    title = f"{report['minutes']:.0f} minutes of a camera that fails every 20 seconds"
    figure = new_figure(9.6, 8.2, title, below, _SOURCE, legend=False)
    back, memory, handles = figure.subplots(3, 1, height_ratios=(3.2, 2.4, 1.6))
    _recoveries(back, report)
    minutes = np.array([sample["minutes"] for sample in samples])
    for name, colour, label in (("rss_mb", BLUE, "resident"), ("allocated_mb", GREEN, "given out by malloc")):
        if samples and samples[0].get(name) is not None:
            memory.plot(minutes, [sample[name] for sample in samples], color=colour, linewidth=1.2, label=label)
    resting = report.get("samples_at_rest", ())
    if resting and resting[0].get("allocated_mb") is not None:
        memory.scatter([each["minutes"] for each in resting], [each["allocated_mb"] for each in resting], s=10,
                       color=ORANGE, label="the same at rest", zorder=3)  # fmt: skip
    if "resident" in report:
        found, rest = report["resident"], minutes[int(WARM_UP * len(minutes)) :]
        middle = np.median([sample["rss_mb"] for sample in samples][-len(rest) :])
        label = f"resident: {found['slope_mb_per_hour']:+.1f} MB an hour ({found['low']:+.1f} to {found['high']:+.1f})"
        memory.plot(rest, middle + found["slope_mb_per_hour"] * (rest - rest.mean()) / 60, color=RED, linestyle="--",
                    label=label)  # fmt: skip
    memory.set_ylabel("memory, MB")
    for name, colour, label in (("handles", GREEN, "open handles"), ("threads", GREY, "threads")):
        handles.plot(minutes, [sample[name] for sample in samples], color=colour, linewidth=1.2, label=label)
    handles.set_ylabel("count")
    handles.set_xlabel("minutes")
    for axes in (memory, handles):
        _, high = axes.get_ylim()
        axes.set_ylim(0, 1.4 * high)
        axes.set_xlim(0, max(minutes[-1], 1e-3))
        axes.axvspan(0, WARM_UP * minutes[-1], color=PALE, alpha=0.25, linewidth=0)
        axes.legend(loc="upper right", frameon=False, fontsize=9, ncols=3)
        tidy(axes)
    save(figure, path)


def _recoveries(axes: Any, report: dict[str, Any]) -> None:
    kinds = list(report["recoveries"])
    for side, (client, colour) in enumerate(_COLOURS.items()):
        of = [o for o in report["outages"] if o["client"] == client and o["recovery"] is not None]
        at = [kinds.index(o["failure"]) + 0.24 * side - 0.12 for o in of]
        axes.scatter(at, [o["recovery"] for o in of], s=18, color=colour, alpha=0.7, linewidths=0, label=_NAMES[client])
    axes.axhline(2, color=GREY, linewidth=1, linestyle=":", label="the bar: 2 s")
    axes.set_xticks(range(len(kinds)), [kind.replace(" at ", "\nat ") for kind in kinds], fontsize=9)
    axes.set_ylim(0, max(2.4, *(1.15 * o["recovery"] for o in report["outages"] if o["recovery"] is not None)))
    axes.set_ylabel("seconds until read again")
    axes.legend(loc="upper right", frameon=False, fontsize=9, ncols=3)
    tidy(axes, "y")
