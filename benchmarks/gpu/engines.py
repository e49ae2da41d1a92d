"""Engines of the bundled network, if TensorRT is installed: built, their words compared with ONNX Runtime's, timed."""

from __future__ import annotations

import importlib.util
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from clip4str.benchmarks.gpu.device import Gpu, spread
from clip4str.benchmarks.gpu.supervisor import Reporter

PRECISIONS = ("fp16", "int8", "fp8")
BATCHES = (1, 8, 32)
ROUNDS = 60
LEAST_SECONDS = 15.0  # with what a section may take more than its share, enough for the bundled network's engines
NEEDED = ("onnx", "onnxruntime", "cuda.bindings")


def engines(gpu: Gpu, report: Reporter) -> None:
    """Skipped, with the reason, if TensorRT or a library that builds need is not installed."""
    what = "engines of the bundled network"
    if gpu.kind == "cpu":
        return report.attempt(f"{what}, rehearsed", 0, _rehearse, report)
    try:
        missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    except ModuleNotFoundError as error:
        missing = [error.name or "a package"]
    target = _target()
    if target is None:
        missing.append("tensorrt")
    if missing or target is None:
        report.skip(what, f"not installed: {', '.join(missing)}")
        return
    from clip4str.runtime.manifest import LEAST_CAPABILITY

    for precision in PRECISIONS:
        if gpu.capability >= LEAST_CAPABILITY.get(precision, (0, 0)):
            report.attempt(f"{what}, {precision}", gpu.least(LEAST_SECONDS), _measure, report, precision, target)


def _target() -> str | None:
    for target, module in (("tensorrt", "tensorrt"), ("tensorrt-rtx", "tensorrt_rtx")):
        if importlib.util.find_spec(module) is not None:
            return target
    return None


def _measure(report: Reporter, precision: str, target: str) -> None:
    from clip4str.export.add_engines import finish_bundle
    from clip4str.export.bundles import build_bundle
    from clip4str.export.engines import EngineOptions
    from clip4str.export.parity_images import sample_images
    from clip4str.runtime import Recognizer

    values = report.values.setdefault(precision, {})
    with tempfile.TemporaryDirectory() as scratch:
        folder = build_bundle(output=Path(scratch) / precision, precision=precision, for_gpu=True)
        finish_bundle(folder, EngineOptions(target=target), min_agreement=0)
        with Recognizer.load(folder, "tensorrt") as ours, Recognizer.load(folder, "onnxruntime") as reference:
            said = ours.manifest.engines
            values |= {name: said[name] for name in ("target", "version", "build_seconds", "layers", "parity")}
            values["compiled_kernels"] = ours.backend.compiled_kernels
            values["one_launch"] = getattr(ours.backend, "one_launch", False)
            _compare(report, values, precision, ours, reference, sample_images(), ROUNDS)


def _rehearse(report: Reporter) -> None:
    """Without engines: ONNX Runtime in their place, on the packaged bundle."""
    from clip4str.core.packaged import PACKAGED
    from clip4str.export.parity_images import sample_images
    from clip4str.runtime import Recognizer

    values = report.values.setdefault("rehearsal", {})
    with Recognizer.load(PACKAGED, "onnxruntime", threads=1) as ours:
        _compare(report, values, "rehearsal", ours, ours, sample_images()[:2], 2)


def _compare(
    report: Reporter, values: dict[str, Any], precision: str, ours: Any, reference: Any, images: Any, rounds: int
) -> None:
    words = [[word.text for word in each.read(images)] for each in (ours, reference)]
    same = sum(a == b for a, b in zip(*words))
    values["words"], values["agreeing"] = len(images), same
    if same < 0.95 * len(images):
        report.fail(f"{precision} engines", f"{same} of {len(images)} words are ONNX Runtime's")
    pixels = ours.prepare(images)
    for batch in BATCHES:
        values[f"batch {batch}"] = spread(_times(ours.read_pixels, pixels[:batch], rounds))
        if values.get("one_launch"):
            stages = partial(ours.driver, ours.backend)
            values[f"batch {batch}, stage by stage"] = spread(_times(stages, pixels[:batch], rounds))
        report.save()


def _times(read: Callable[[np.ndarray], object], pixels: np.ndarray, rounds: int) -> list[float]:
    """Seconds of whole readings, of pixels on the host; the first ones, which capture graphs, are dropped."""
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        read(pixels)
        times.append(time.perf_counter() - start)
    return times[rounds // 6 :]
