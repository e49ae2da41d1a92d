"""How soon frames of an RTSP server are looked at again after it is back, for outages of 1 to 40 seconds."""

from __future__ import annotations

import argparse
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clip4str.benchmarks.figures import markdown
from clip4str.benchmarks.live.camera import Camera
from clip4str.benchmarks.live.failures import killed, silent
from clip4str.benchmarks.live.watch import CLIENTS, Watch, check_camera, read, sources
from clip4str.core.console import Parser, run_script
from clip4str.core.errors import UsageError
from clip4str.core.machine_info import busy, describe, machine_info
from clip4str.core.output_files import check_output, write_json
from clip4str.runtime import Recognizer
from clip4str.video.reader import VideoReader

PROGRAM = "benchmarks/recovery.py"
BAR = 2.0  # seconds
LENGTHS = (1.0, 2.0, 3.0, 5.0, 8.0, 12.0, 17.0, 23.0, 30.0, 40.0)
KINDS = {"killed": killed, "hangs": silent}
SETTLED = 4.0  # seconds of frames between two outages
MOST = 60.0  # seconds to wait for a client
_EPILOG = """\
examples:
  python benchmarks/recovery.py --json recovery.json

An RTSP server of this machine is watched by PyAV and by OpenCV at once, by one
VideoReader with its detector and the packaged network. The server is killed, and
started again after so many seconds; or stopped and let go on, which nobody can tell
from one that hangs. The time is that from its port's accepting (from its going
on) to the first frame that has been looked at.
"""


def measured(camera: Camera, watch: Watch, lengths: Sequence[float], rate: int) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = []
    for kind, broken in KINDS.items():
        for length in lengths:
            time.sleep(SETTLED)
            watch.forget()
            broke = time.monotonic()
            back = broken(camera, length, time.sleep)
            for number, client in enumerate(CLIENTS):
                seen = watch.recovered(number, broke, MOST)
                took = None if seen is None else round(max(0.0, seen - back), 3)
                rows.append({"rate": rate, "kind": kind, "away": round(back - broke, 2), "client": client, "s": took})
            print(
                f"{kind}, {back - broke:.1f} s: " + ", ".join(f"{r['client']} {r['s']} s" for r in rows[-2:]),
                flush=True,
            )
    return rows


def summary(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """By frame rate, kind and client: outages, median and longest recovery, how many took over BAR or failed."""
    groups = dict.fromkeys((row["rate"], row["kind"], row["client"]) for row in rows)
    found = []
    for rate, kind, client in groups:
        of = [row["s"] for row in rows if (row["rate"], row["kind"], row["client"]) == (rate, kind, client)]
        known = [value for value in of if value is not None]
        found.append({
            "rate": rate, "kind": kind, "client": client, "outages": len(of),
            "median": round(float(np.median(known)), 2) if known else None, "longest": max(known, default=None),
            "late": sum(value is None or value > BAR for value in of),
        })  # fmt: skip
    return found


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog=PROGRAM, description=__doc__, epilog=_EPILOG,
                    formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    add = parser.add_argument
    add(
        "--lengths",
        type=float,
        nargs="+",
        default=LENGTHS,
        metavar="S",
        help="of outages, seconds (default: ten, 1 to 40)",
    )
    add("--rates", type=int, nargs="+", default=(25, 10), metavar="N", help="frames a second (default: 25 and 10)")
    add("--json", type=Path, metavar="FILE", help="write all figures as JSON")
    args = parser.parse_args(argv)
    if not all(0.1 <= length <= 3600 for length in args.lengths) or not all(1 <= rate <= 60 for rate in args.rates):
        raise UsageError("--lengths are 0.1 to 3600 seconds, --rates 1 to 60 frames a second")
    check_camera()
    check_output(args.json)
    info, rows = machine_info(1), list[dict[str, Any]]()
    reader = VideoReader(Recognizer.load(threads=1))
    print(describe(info), flush=True)
    for rate in args.rates:
        with Camera(width=640, height=360, rate=rate, text="STATION") as camera:
            camera.start()
            opened, watch = sources(camera), Watch()
            reading = threading.Thread(target=read, args=(reader, opened, watch))
            reading.start()
            try:
                rows += measured(camera, watch, args.lengths, rate)
            finally:
                for source in opened:
                    source.close()
                reading.join()
    table = summary(rows)
    head = ("frames a second", "server", "client", "outages", "median, s", "longest, s", f"over {BAR:g} s")
    print(f"\n{markdown(head, [list(row.values()) for row in table])}\n")
    if busy(info):
        print(f"taken while other work ran (load {info['load_before']}): times are too long")
    if args.json:
        command = f"python {PROGRAM} --rates {' '.join(map(str, args.rates))}"
        write_json(args.json, {"command": command, "machine": info, "summary": table, "outages": rows})
    return int(any(row["late"] for row in table))


if __name__ == "__main__":
    sys.exit(run_script(PROGRAM, main))
