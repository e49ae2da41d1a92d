"""Hours of reading at once: does memory grow, do words change, does it become slower?"""

from __future__ import annotations

import argparse
import io
import itertools
import random
import sys
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from clip4str.benchmarks.soak_chart import save_chart
from clip4str.benchmarks.soak_figures import BAR, LATENCY, LatencyLog, judged, summary
from clip4str.benchmarks.soak_state import STATE, Gate, Samples, process_state
from clip4str.core.charts import check_chart
from clip4str.core.console import Parser, run_script
from clip4str.core.errors import ImageError, UsageError
from clip4str.core.machine_info import describe, machine_info
from clip4str.core.output_files import check_output, write_json
from clip4str.runtime import Recognizer
from clip4str.runtime.default_bundle import default_bundle

PROGRAM = "benchmarks/soak.py"
CROPS = Path(__file__).resolve().parents[1] / "export" / "sample_crops"
SCALES = (0.4, 1.0, 3.0, 12.0)
FORMS = ("path", "array", "grey array", "picture", "PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF")
MOST_BATCH = 16
MOST_SAMPLES = 600
_EPILOG = f"""\
examples:
  python benchmarks/soak.py --minutes 30 --json soak.json --chart soak.png

Threads share one Recognizer and read batches of 1 to {MOST_BATCH} of the sample crops in
several sizes and file formats; every word is compared with the first answer to
the same picture. Now and then one picture is damaged, and another Recognizer is
opened, reads, and is closed. Exit code 1 if a word changed, a handle or thread was
left open, or memory grew by {BAR} MB an hour or more: what malloc has given out while no
thread reads (least squares over the medians of twenty stretches after the warm-up;
judged from ten minutes on).
"""


@dataclass
class Tally:
    """What all threads count together. errors: of readers that ended, and whatever else ought not to be."""

    pictures: int = 0
    calls: int = 0
    refused: int = 0  # damaged pictures, as they should be
    opened: int = 0
    changed: list[str] = field(default_factory=list)
    confidence: float = 0.0  # how far one was from the first answer's, at most
    errors: list[str] = field(default_factory=list)
    lock: threading.Lock = field(default_factory=threading.Lock)


def pictures(crops: Sequence[Path]) -> list[Any]:
    """Every crop, in one of the sizes and one of the forms that read takes."""
    made: list[Any] = []
    for number, path in enumerate(crops):
        with Image.open(path) as opened:
            crop = opened.convert("RGB")
        scale = SCALES[number % len(SCALES)]
        crop = crop.resize((max(8, round(crop.width * scale)), max(8, round(crop.height * scale))))
        made += [_in_form(crop, path, FORMS[(number + k) % len(FORMS)]) for k in range(3)]
    return made


def _in_form(crop: Image.Image, path: Path, form: str) -> Any:
    if form == "path":
        return path
    if form == "picture":
        return crop
    if form in ("array", "grey array"):
        return np.asarray(crop if form == "array" else crop.convert("L"))
    buffer = io.BytesIO()
    crop.save(buffer, form)
    return buffer.getvalue()


def damaged(crops: Sequence[Path]) -> list[bytes]:
    """Files that are cut or none."""
    return [crops[0].read_bytes()[:300], b"\x89PNG\r\n\x1a\n" + bytes(40), b"no picture"]


class Soak:
    """Reads until told to stop."""

    def __init__(self, bundle: Path, crops: Sequence[Path], seed: int, log: LatencyLog) -> None:
        self.bundle, self.seed, self.log, self.tally = bundle, seed, log, Tally()
        self.stop, self.gate = threading.Event(), Gate()
        self.recognizer = Recognizer.load(bundle, threads=1)
        self.pictures, self.damaged = pictures(crops), damaged(crops)
        self.first = [self.recognizer.read([picture])[0] for picture in self.pictures]

    def read(self, number: int) -> None:
        """One thread's work."""
        chosen = random.Random(1000 * self.seed + number)
        try:
            for call in itertools.count(1):
                if self.stop.is_set():
                    return
                # half of the calls are of one picture: theirs is the latency
                size = 1 if chosen.random() < 0.5 else chosen.randint(2, MOST_BATCH)
                with self.gate.passed():
                    if call % 20 == 1:
                        self._refused(chosen.choice(self.damaged))
                    self._compared(self.recognizer, [chosen.randrange(len(self.pictures)) for _ in range(size)])
        except Exception as error:  # a thread's end must not go unnoticed
            self._failed(error)

    def open_and_close(self, every: float) -> None:
        """Another Recognizer, every so many seconds."""
        chosen = random.Random(self.seed)
        try:
            while not self.stop.wait(every):
                with self.gate.passed(), Recognizer.load(self.bundle, threads=1) as another:
                    self._compared(another, [chosen.randrange(len(self.pictures)) for _ in range(4)])
                with self.tally.lock:
                    self.tally.opened += 1
        except Exception as error:
            self._failed(error)

    def _compared(self, recognizer: Recognizer, rows: list[int]) -> None:
        start = time.perf_counter()
        words = recognizer.read([self.pictures[row] for row in rows])
        if len(rows) == 1:
            self.log.add(1000 * (time.perf_counter() - start))
        with self.tally.lock:
            self.tally.calls += 1
            self.tally.pictures += len(rows)
            for row, word in zip(rows, words):
                first = self.first[row]
                self.tally.confidence = max(self.tally.confidence, abs(word.confidence - first.confidence))
                if word.text != first.text and len(self.tally.changed) < 100:
                    self.tally.changed.append(f"picture {row}: {first.text!r} became {word.text!r}")

    def _refused(self, picture: bytes) -> None:
        try:
            word = self.recognizer.read([picture])
        except ImageError:
            with self.tally.lock:
                self.tally.refused += 1
        else:
            self._failed(f"a damaged picture was read as {word}")

    def _failed(self, error: object) -> None:
        with self.tally.lock:
            self.tally.errors.append(f"{type(error).__name__}: {error}"[:300])
        self.stop.set()


def run(soak: Soak, seconds: float, threads: int, every: float, reopen: float) -> list[dict[str, Any]]:
    """Starts the threads, and takes a sample of this process every so many seconds, while no thread reads: what is held
    then is kept, not in use. Ends early after an error."""
    workers = [threading.Thread(target=soak.read, args=(number,), daemon=True) for number in range(threads)]
    if reopen:
        workers.append(threading.Thread(target=soak.open_and_close, args=(reopen,), daemon=True))
    for worker in workers:
        worker.start()
    planned = max(2, round(seconds / every))
    samples = Samples(planned, ("minutes", *STATE, *LATENCY))
    start = time.monotonic()
    for number in range(1, planned + 1):
        if soak.stop.wait(max(0.0, start + number * every - time.monotonic())):
            break
        with soak.gate.closed():
            minutes = (time.monotonic() - start) / 60
            samples.add({"minutes": round(minutes, 4), **process_state(), **soak.log.next()})
    soak.stop.set()
    for worker in workers:
        worker.join(60)
        if worker.is_alive():
            soak.tally.errors.append("a thread still reads a minute after it was told to stop")
    return samples.rows()


def main(argv: Sequence[str] | None = None) -> int:
    parser = Parser(prog=PROGRAM, description=__doc__, epilog=_EPILOG,
                    formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    add = parser.add_argument
    add("--minutes", type=float, default=30, metavar="N", help="how long (default 30)")
    add("--threads", type=int, default=4, metavar="N", help="that read at once, one core each (default 4)")
    add("--reopen", type=float, default=20, metavar="S", help="seconds between openings of another Recognizer; 0: none")
    add("--bundle", type=Path, metavar="DIR", help="bundle to read with (default: the newest)")
    add("--seed", type=int, default=0, metavar="N", help="which pictures are read when")
    add("--chart", type=Path, metavar="FILE", help="draw memory, latency, handles over time (.png, .svg, .pdf)")
    add("--json", type=Path, metavar="FILE", help="write all figures as JSON")
    args = parser.parse_args(argv)
    if not 0.05 <= args.minutes <= 10_000 or not 1 <= args.threads <= 256 or not args.reopen >= 0:
        raise UsageError("--minutes is 0.05 to 10000, --threads 1 to 256, --reopen 0 or more")
    if not Path("/proc/self/statm").is_file():
        raise UsageError("memory and handles are read from /proc: this runs on Linux alone")
    check_output(args.json)
    check_chart(args.chart)
    every = max(0.25, min(2.0, 60 * args.minutes / 100), 60 * args.minutes / MOST_SAMPLES)
    info = machine_info(args.threads)
    soak = Soak(args.bundle or default_bundle(), sorted(CROPS.glob("*.jpg")), args.seed, LatencyLog())
    samples = run(soak, 60 * args.minutes, args.threads, every, args.reopen)
    manifest, tally = soak.recognizer.manifest, soak.tally
    figures = summary(samples)
    report = {
        "command": f"python {PROGRAM} --minutes {args.minutes:g} --threads {args.threads} --reopen {args.reopen:g}",
        "bundle": f"{manifest.name} {manifest.precision}", "machine": info,
        "minutes": round(samples[-1]["minutes"], 2) if samples else 0.0,
        "readers": args.threads, "pictures": tally.pictures, "calls": tally.calls, "refused": tally.refused,
        "opened": tally.opened, "changed": tally.changed, "errors": tally.errors,
        "largest_change_of_confidence": round(tally.confidence, 6), **figures, "samples": samples,
    }  # fmt: skip
    report["verdicts"] = judged(report)
    soak.recognizer.close()
    print(f"{report['bundle']}, {report['minutes']:.1f} minutes, {tally.pictures} pictures in {tally.calls} calls, "
          f"{tally.refused} damaged ones refused, {tally.opened} recognisers opened and closed")  # fmt: skip
    print(describe(info))
    for verdict in report["verdicts"]:
        print(f"{verdict['result']:10} {verdict['what']}")
    for line in [*tally.changed[:5], *tally.errors[:5]]:
        print(line, file=sys.stderr)
    if args.json:
        write_json(args.json, report)
    if args.chart:
        save_chart(report, args.chart)
    return int(any(verdict["result"] == "missed" for verdict in report["verdicts"]))


if __name__ == "__main__":
    sys.exit(run_script(PROGRAM, main))
