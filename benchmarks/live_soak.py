"""A camera that fails every 20 seconds, each time in another way, read for half an hour."""

from __future__ import annotations

import argparse
import itertools
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clip4str.benchmarks.figures import markdown
from clip4str.benchmarks.live.camera import Camera
from clip4str.benchmarks.live.failures import FAILURES, TIMEOUT, UNSEEN
from clip4str.benchmarks.live.watch import CLIENTS, Watch, check_camera, read, sources
from clip4str.benchmarks.soak_figures import LATENCY, LatencyLog, judged, summary
from clip4str.benchmarks.soak_state import STATE, Samples, process_state
from clip4str.core.charts import check_chart
from clip4str.core.console import Parser, run_script
from clip4str.core.errors import UsageError
from clip4str.core.machine_info import describe, machine_info
from clip4str.core.output_files import check_output, write_json
from clip4str.runtime import Recognizer
from clip4str.runtime.default_bundle import default_bundle
from clip4str.video.detect import Detections, Detector, open_detector
from clip4str.video.frames import Frame
from clip4str.video.reader import VideoReader
from clip4str.video.sources.base import Source

PROGRAM = "benchmarks/live_soak.py"
BAR = 2.0  # seconds after a camera is back until a frame of it is looked at
AWAY = 3.0  # seconds for which it is away, where it is
WORDS = ("STATION", "MARKET", "COFFEE", "GARDEN", "MUSEUM", "HOTEL", "BAKERY", "PARKING", "RIVER", "SUMMER")
SHOWN = 4.0  # seconds that each word is
MOST_SAMPLES = 600
RESTING = ("killed",)  # failures at whose end no frame has come for seconds, and no connection is open
ENOUGH = 12  # samples of that, from which memory is told of them alone
NO_LATENCY = dict.fromkeys(LATENCY)
_EPILOG = f"""\
examples:
  python benchmarks/live_soak.py --minutes 30 --json live-soak.json --chart live-soak.png

An RTSP server of this machine shows words, another every {SHOWN:g} seconds. It is read by PyAV
and by OpenCV at once, by one VideoReader with its detector and the packaged network.
It fails by turns: {", ".join(FAILURES)}.
Exit code 1 if a word that was found did not end once, a time went back, a camera
was back for {BAR:g} seconds before a frame was looked at, or memory, handles or threads grew.
"""


class Timed:
    """A detector whose searches are timed."""

    def __init__(self, detector: Detector, log: LatencyLog) -> None:
        self.detector, self.log = detector, log

    def detect(self, frame: Frame) -> Detections:
        start = time.perf_counter()
        found = self.detector.detect(frame)
        self.log.add(1000 * (time.perf_counter() - start))
        return found


class Breaker(threading.Thread):
    """Breaks the camera every so many seconds, and writes down how long it took each client to come back."""

    def __init__(self, camera: Camera, watch: Watch, seconds: float, every: float) -> None:
        super().__init__(daemon=True)
        self.camera, self.watch, self.seconds, self.every = camera, watch, seconds, every
        self.stop, self.outages, self.error = threading.Event(), list[dict[str, Any]](), ""
        self.crashes = 0
        self.resting = Samples(1 + int(seconds / every), ("minutes", *STATE, *LATENCY))

    def run(self) -> None:
        try:
            self._run()
        except Exception as error:  # a thread's end must not go unnoticed
            self.error = f"{type(error).__name__}: {error}"
        finally:
            self.stop.set()

    def _run(self) -> None:
        words, start = itertools.cycle(WORDS), time.monotonic()

        def at_rest(away: float) -> None:
            """At the end of the time no frame is under way any more: what is held is kept."""
            self.stop.wait(away)
            self.resting.add({"minutes": (time.monotonic() - start) / 60, **process_state(), **NO_LATENCY})

        for number, (name, broken) in enumerate(itertools.cycle(FAILURES.items()), 1):
            due = start + number * self.every
            while not self.stop.is_set() and time.monotonic() < due:
                self.stop.wait(min(SHOWN, max(0.0, due - time.monotonic())))
                self.camera.tell(f"text {next(words)}")
                if self.camera.crashed:  # GStreamer's, not ours; but it is to be survived as well
                    self.crashes += 1
                    self.camera.start()
            if self.stop.is_set() or time.monotonic() - start + self.every / 2 > self.seconds:
                return
            self.watch.forget()
            broke = time.monotonic()
            back = broken(self.camera, AWAY, at_rest if name in RESTING else self.stop.wait)
            for client, name_of in enumerate(CLIENTS):
                if (name, name_of) in UNSEEN:
                    continue
                seen = self.watch.recovered(client, broke, self.every / 2)
                took = None if seen is None else round(max(0.0, seen - back), 3)
                self.outages.append({
                    "minutes": round((broke - start) / 60, 3), "failure": name, "client": name_of,
                    "away": round(back - broke, 2), "recovery": took,
                })  # fmt: skip


def sample(log: LatencyLog, stop: threading.Event, every: float, samples: Samples) -> None:
    start = time.monotonic()
    while not stop.wait(every):
        samples.add({"minutes": round((time.monotonic() - start) / 60, 4), **process_state(), **log.next()})


def close_all(opened: Sequence[Source], stop: threading.Event) -> None:
    """Once told to: reading ends with them."""
    stop.wait()
    for source in opened:
        source.close()


def at_rest(samples: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Growth of memory, of samples while no frame was under way; nothing where they are few."""
    found = summary(samples) if len(samples) >= ENOUGH else {}
    return {name: found[name] for name in ("memory", "resident", "kept_free") if name in found}


def recoveries(outages: Sequence[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """By failure: how often, how often not within the time, median and longest of both clients, seconds."""
    found = {}
    for name in dict.fromkeys(outage["failure"] for outage in outages):
        took = [outage["recovery"] for outage in outages if outage["failure"] == name]
        known = [each for each in took if each is not None]
        found[name] = {
            "outages": len(took), "not_back": len(took) - len(known),
            "median": round(float(np.median(known)), 2) if known else None, "longest": max(known, default=None),
        }  # fmt: skip
    return found


def verdicts(report: dict[str, Any]) -> list[dict[str, str]]:
    """One line for every bar."""
    words, late = report["words"], [o for o in report["outages"] if o["recovery"] is None or o["recovery"] > BAR]
    judged_apart = [o for o in late if o["failure"] == "locked"]  # tried less and less often, by choice
    lines = [
        (not words["lost"], f"{words['lost']} words without their one end, of {words['found']} found"),
        (not report["back_steps"], f"{report['back_steps']} frames whose time went back, of {report['frames']}"),
        (not report["error"], report["error"] or "no error"),
        (len(late) == len(judged_apart),
         f"{len(late) - len(judged_apart)} recoveries over {BAR:g} s, of {len(report['outages'])}; "
         f"{len(judged_apart)} more after refused passwords"),
    ]  # fmt: skip
    shared = judged({**report, "changed": [], "errors": [], "pictures": 0, "refused": 0})[
        2:
    ]  # those two are of pictures
    return [{"result": "kept" if kept else "missed", "what": what} for kept, what in lines] + shared


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog=PROGRAM, description=__doc__, epilog=_EPILOG,
                    formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    add = parser.add_argument
    add("--minutes", type=float, default=30, metavar="N", help="how long (default 30)")
    add("--every", type=float, default=20, metavar="S", help="seconds from failure to failure (default 20)")
    add("--chart", type=Path, metavar="FILE", help="draw memory, recoveries, handles over time (.png, .svg, .pdf)")
    add("--json", type=Path, metavar="FILE", help="write all figures as JSON")
    args = parser.parse_args(argv)
    if not 0.5 <= args.minutes <= 10_000 or not 10 + TIMEOUT <= args.every <= 3600:
        raise UsageError(f"--minutes is 0.5 to 10000, --every {10 + TIMEOUT:g} to 3600 seconds")
    check_camera()
    check_output(args.json)
    check_chart(args.chart)
    info, log, watch = machine_info(1), LatencyLog(), Watch(frozenset(word.casefold() for word in WORDS))
    taken = Samples(MOST_SAMPLES + 60, ("minutes", *STATE, *LATENCY))
    # few captions are kept: so many words fill the default of 512 all the time, 6 MB that would look like growth
    recognizer = Recognizer.load(default_bundle(), threads=1, cache_size=32)
    reader = VideoReader(recognizer, Timed(open_detector("auto", threads=1), log))
    with Camera(width=640, height=360, rate=15, text=WORDS[-1]) as camera:
        camera.start()
        opened = sources(camera)
        breaker = Breaker(camera, watch, 60 * args.minutes, args.every)
        every = max(1.0, 60 * args.minutes / MOST_SAMPLES)
        sampler = threading.Thread(target=sample, args=(log, breaker.stop, every, taken), daemon=True)
        ending = threading.Thread(target=close_all, args=(opened, breaker.stop), daemon=True)
        for thread in (breaker, sampler, ending):
            thread.start()
        try:
            read(reader, opened, watch)
        finally:
            breaker.stop.set()
        for thread in (breaker, sampler, ending):
            thread.join(60)
    manifest, samples = recognizer.manifest, taken.rows()
    report: dict[str, Any] = {
        "command": f"python {PROGRAM} --minutes {args.minutes:g} --every {args.every:g}",
        "bundle": f"{manifest.name} {manifest.precision}", "machine": info,
        "minutes": samples[-1]["minutes"] if samples else 0.0, "frames": sum(watch.frames.values()),
        "words": {
            "found": watch.found, "ended": watch.ended, "lost": watch.lost,
            "read_thrice": watch.read_thrice, "right_of_these": watch.right_of_these,
        },
        "gaps": dict(sorted(watch.gaps.items())), "back_steps": watch.back_steps, "error": breaker.error,
        "crashes_of_the_server": breaker.crashes,
        "recoveries": recoveries(breaker.outages), "outages": breaker.outages, **summary(samples),
        **at_rest(breaker.resting.rows()), "samples": samples, "samples_at_rest": breaker.resting.rows(),
    }  # fmt: skip
    report["verdicts"] = verdicts(report)
    recognizer.close()
    print_report(report)
    if args.json:
        write_json(args.json, report)
    if args.chart:
        from clip4str.benchmarks.live_soak_chart import save_chart

        save_chart(report, args.chart)
    return int(any(verdict["result"] == "missed" for verdict in report["verdicts"]))


def print_report(report: dict[str, Any]) -> None:
    words = report["words"]
    print(f"{report['bundle']}, {report['minutes']:.1f} minutes, {report['frames']} frames, {words['found']} words, "
          f"{words['right_of_these']} of {words['read_thrice']} that were read thrice right")  # fmt: skip
    print(describe(report["machine"]))
    rows = [[name, *each.values()] for name, each in report["recoveries"].items()]
    print(f"\n{markdown(('failure', 'outages', 'not back', 'median, s', 'longest, s'), rows)}\n")
    for verdict in report["verdicts"]:
        print(f"{verdict['result']:10} {verdict['what']}")


if __name__ == "__main__":
    sys.exit(run_script(PROGRAM, main))
