"""Where the time of a video's frames goes, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from clip4str.core.charts import BLUE, GREEN, GREY, ORANGE, RED, VIOLET, new_figure, save, tidy

_LOOKS = {
    "detect": ("search words (every few frames)", BLUE), "flow": ("follow them", ORANGE), "read": ("read crops", GREEN),
    "quality": ("judge crops", VIOLET), "wait": ("decode", GREY),
}  # fmt: skip
_SOURCE = "generated street scenes, 1280 x 720, times by the clock. Measured by benchmarks/video.py"


def save_chart(figures: dict[str, Any], videos: int, path: Path) -> None:
    """figures: the report of video.py. Needs matplotlib: see check_chart."""
    below = (
        f"{figures['frames']:,} frames of {videos} videos; {figures['cpu_ms_per_frame']:.1f} ms of CPU time a frame, "
        "33 there are at 30 frames a second"
    )
    figure = new_figure(7.6, 2.9, "Where does the time of a frame go?", below, _SOURCE, legend=False)
    axes = figure.subplots()
    stages = sorted(figures["stages_ms_per_frame"].items(), key=lambda item: item[1])
    for place, (stage, value) in enumerate(stages):
        label, colour = _LOOKS.get(stage, (stage, RED))
        axes.barh(place, value, color=colour, height=0.62)
        axes.text(value, place, f"  {label}: {value:.1f} ms", va="center", fontsize=9)
    axes.set_yticks([])
    axes.set_xlim(0, 1.5 * max(value for _, value in stages))
    axes.set_xlabel("ms a frame, on average")
    tidy(axes, "x")
    save(figure, path)
