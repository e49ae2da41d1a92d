"""The bundled network from files to words: images a second, how much of the time the device is busy, and the first word
of a process after `warm_up` beside those that follow."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from clip4str.benchmarks.gpu.device import Gpu, spread
from clip4str.benchmarks.gpu.supervisor import Reporter

BATCH, FILES, ROUNDS = 64, 1024, 40


def files(gpu: Gpu, report: Reporter) -> None:
    from clip4str.export.parity_images import BUNDLED_CROPS
    from clip4str.model.checkpoint import BUNDLED
    from clip4str.runtime import Recognizer

    crops = sorted(BUNDLED_CROPS.glob("*.jpg"))
    batch, count, rounds = (BATCH, FILES, ROUNDS) if gpu.kind == "cuda" else (2, 4, 3)
    began = time.perf_counter()
    with Recognizer.load(BUNDLED, backend="torch", device=gpu.device.type, batch_size=batch) as recognizer:
        report.values["load_seconds"] = round(time.perf_counter() - began, 2)
        report.attempt("the first word", 0, _first, gpu, report, recognizer, crops[0], batch, rounds)
        paths = [crops[i % len(crops)] for i in range(count)]
        report.attempt("files to words", gpu.least(5), _throughput, gpu, report, recognizer, paths)


def _first(gpu: Gpu, report: Reporter, recognizer: Any, crop: Path, batch: int, rounds: int) -> None:
    began = time.perf_counter()
    recognizer.warm_up((1, batch))
    report.values["warm_up_seconds"] = round(time.perf_counter() - began, 2)
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        recognizer.read([crop])
        times.append(time.perf_counter() - began)
    later = spread(times[1:])
    first = round(1e6 * times[0], 1)
    report.values["first_word"] = {"first_us": first, "later": later, "first_over_median": first / later["median"]}


def _throughput(gpu: Gpu, report: Reporter, recognizer: Any, paths: list[Path]) -> None:
    """Twice untraced, then once under the profiler, whose times are its own."""
    from clip4str.benchmarks.gpu.timeline import shares

    times = []
    for _ in range(2):
        began = time.perf_counter()
        recognizer.read(paths)
        times.append(time.perf_counter() - began)
    rate = len(paths) / min(times)
    report.values |= {"files": len(paths), "images_per_second": round(rate, 1)}
    report.save()
    if spans := gpu.trace(lambda: recognizer.read(paths)):
        found = shares(spans)
        report.values["device_busy"] = round(found["busy_us"] / found["span_us"], 4)
        report.values["device"] = {name: found[name] for name in ("span_us", "busy_us", "longest_gap_us", "launches")}
