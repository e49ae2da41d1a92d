"""Redraws the charts of benchmarks/results from the figures beside them, without measuring anything."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path

from clip4str.benchmarks import (
    calibration_chart,
    latency_chart,
    live_soak_chart,
    peer_chart,
    roofline_chart,
    soak_chart,
    video_chart,
    voting_chart,
    words_seen,
)
from clip4str.benchmarks.serving_load import serving_chart
from clip4str.core.console import Parser, run_script

PROGRAM = "benchmarks/redraw.py"
RESULTS = Path(__file__).resolve().parent / "results"


def main(argv: Sequence[str] | None = None, folder: Path = RESULTS) -> int:
    Parser(prog=PROGRAM, description=__doc__).parse_args(argv)

    def figures(name: str) -> dict:
        return json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))

    latency, peers, calibration = figures("cpu-small"), figures("peers-small"), figures("calibration-small")
    machine = f"1 thread, {latency['machine']['cpu']}"
    latency_chart.save_chart(latency["batches"], folder / "cpu-small.png", f"{latency['bundle']}, {machine}")
    peer_chart.save_chart(peers["recognisers"], folder / "peers-small.png", f"{machine}, one word at a time")
    measured, sets = calibration["measured"]["all"], ", ".join(calibration["measured"]["sets"])
    temperature, name = calibration["temperature"], calibration["bundle"]["name"]
    calibration_chart.save_chart(measured, temperature, folder / "calibration-small.png", name, sets)
    roofline_chart.save_chart(figures("roofline"), folder / "roofline.png")
    soak_chart.save_chart(figures("soak-small"), folder / "soak-small.png")
    live_soak_chart.save_chart(figures("live-soak"), folder / "live-soak.png")
    for server in ("serving-triton", "serving-ray", "serving-ray-haproxy"):
        serving_chart.save_chart(figures(server), folder / f"{server}.png")
    voting, video = figures("voting"), figures("video")
    voting_chart.save_chart(voting, voting["tracks"], voting["frames"], folder / "voting.png")
    video_chart.save_chart(video, video["videos"], folder / "video.png")
    words_seen.save_chart(figures("words-seen"), folder / "words-seen.png")
    return 0


if __name__ == "__main__":
    sys.exit(run_script(PROGRAM, main))
