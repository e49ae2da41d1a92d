"""From files to words, B/16 with random weights and the bundled network: images a second, how much of the time the
device is busy, and the first word after `warm_up` beside those that follow."""

from __future__ import annotations

import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from clip4str.benchmarks.gpu.device import Gpu, spread
from clip4str.benchmarks.gpu.supervisor import Reporter
from clip4str.model import Config

BATCH, FILES, ROUNDS = 64, 1024, 40
END_BIAS = 3.0  # of the end token: random weights read 26 characters otherwise, in five times the passes


def files(gpu: Gpu, report: Reporter, config: Config) -> None:
    """report.values: "base16", of `config`, for the targets, in a process that has read nothing yet; then "small"."""
    from clip4str.model.checkpoint import BUNDLED

    with tempfile.TemporaryDirectory() as folder:
        path = report.attempt("random weights", 0, _ending, gpu, config, Path(folder, "base16.safetensors"))
        if path:
            report.attempt("base16", 0, _network, gpu, report, "base16", path)
    gpu.free()
    report.attempt("small", gpu.least(5), _network, gpu, report, "small", BUNDLED)


def _ending(gpu: Gpu, config: Config, path: Path) -> Path:
    """Writes a network of random weights whose words end at once, so that few or none are read further."""
    from clip4str.benchmarks.random_weights import random_network
    from clip4str.core.text import END
    from clip4str.model import save_checkpoint

    network = random_network(config, gpu.device).requires_grad_(False)
    for decoder in (network.visual_decoder, network.cross_decoder):
        decoder.head.bias[END] += END_BIAS
    save_checkpoint(network, path, torch.float16)
    return path


def _network(gpu: Gpu, report: Reporter, name: str, path: Path) -> None:
    from clip4str.export.parity_images import BUNDLED_CROPS
    from clip4str.runtime import Recognizer

    crops = sorted(BUNDLED_CROPS.glob("*.jpg"))
    batch, count, rounds = (BATCH, FILES, ROUNDS) if gpu.kind == "cuda" else (2, 4, 3)
    values: dict[str, Any] = {}
    report.values[name] = values
    began = time.perf_counter()
    with Recognizer.load(path, backend="torch", device=gpu.device.type, batch_size=batch) as recognizer:
        values["load_seconds"] = round(time.perf_counter() - began, 2)
        report.attempt(f"{name}, the first word", 0, _first, values, recognizer, crops[0], batch, rounds)
        paths = [crops[i % len(crops)] for i in range(count)]
        report.attempt(f"{name}, files to words", gpu.least(5), _throughput, gpu, report, values, recognizer, paths)


def _first(values: dict[str, Any], recognizer: Any, crop: Path, batch: int, rounds: int) -> None:
    began = time.perf_counter()
    recognizer.warm_up((1, batch))
    values["warm_up_seconds"] = round(time.perf_counter() - began, 2)
    times = []
    for _ in range(rounds):
        began = time.perf_counter()
        recognizer.read([crop])
        times.append(time.perf_counter() - began)
    later = spread(times[1:])
    first = round(1e6 * times[0], 1)
    values["first_word"] = {"first_us": first, "later": later, "first_over_median": first / later["median"]}


def _throughput(gpu: Gpu, report: Reporter, values: dict[str, Any], recognizer: Any, paths: list[Path]) -> None:
    """Twice untraced, then once under the profiler, whose times are its own."""
    from clip4str.benchmarks.gpu.timeline import shares

    times = []
    recognizer.reset_stats()
    for _ in range(2):
        began = time.perf_counter()
        recognizer.read(paths)
        times.append(time.perf_counter() - began)
    stats, rate = recognizer.stats, len(paths) / min(times)
    values |= {"files": len(paths), "images_per_second": round(rate, 1)}
    values["passes_per_batch"] = {  # beyond what the program always does: words that were read further
        kind: round(getattr(stats, f"{kind}_passes") / stats.batches, 2) for kind in ("visual", "cross", "refine")
    }
    report.save()
    if spans := gpu.trace(lambda: recognizer.read(paths)):
        found = shares(spans)
        values["device_busy"] = round(found["busy_us"] / found["span_us"], 4)
        values["device"] = {name: found[name] for name in ("span_us", "busy_us", "longest_gap_us", "launches")}
