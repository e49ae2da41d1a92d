"""Pixels on the device to words on the host: every way of decoding, taking turns."""

from __future__ import annotations

import copy
import gc
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from clip4str.benchmarks import kernel_launches
from clip4str.benchmarks.devices import Device
from clip4str.benchmarks.gpu.device import Gpu, spread
from clip4str.benchmarks.gpu.networks import PublishedWay, random_pixels
from clip4str.benchmarks.gpu.supervisor import Reporter
from clip4str.benchmarks.launches import total_flops
from clip4str.benchmarks.predictions import predict_program
from clip4str.benchmarks.random_weights import random_network
from clip4str.model import Clip4Str, Config

Side = Callable[[Tensor], Any]
EAGER = ("published_fp32", "published_half", "published_autocast")  # the published way: ours is compared with the best
_PIXELS = 4  # batches of different pixels that take turns


class Networks:
    """One size of network in every form that is timed, each made when first used."""

    def __init__(self, gpu: Gpu, config: Config) -> None:
        self.gpu, self.config = gpu, config
        self.model = random_network(config, gpu.device)
        self._half: Clip4Str | None = None
        self._fused: Any = None

    @property
    def half(self) -> Clip4Str:
        if self._half is None:
            self._half = copy.deepcopy(self.model).to(self.gpu.half).requires_grad_(False)
        return self._half

    def fused(self, batch: int) -> Any:
        from clip4str.benchmarks.gpu.fused import FusedProgram, fused

        if self._fused is None:
            self._fused = fused(self.model, self.gpu.half, self.gpu.device)
        weights, tables = self._fused
        return FusedProgram(weights, tables, batch, self.model.charset)


class Graphed:
    """A program under a CUDA graph with the copies at its ends, and its image tower under another."""

    def __init__(self, gpu: Gpu, networks: Networks, batch: int) -> None:
        self.program = networks.fused(batch)
        self.program.load(random_pixels(networks.config, batch, gpu.device))
        self.replay, self.tower = gpu.graph(self.program.run), gpu.graph(self.program.tower)

    def __call__(self, pixels: Tensor) -> list[str]:
        self.program.load(pixels)
        self.replay()
        return self.program.words()


class Plain:
    """Ours without kernels: the same passes in plain torch, under a CUDA graph."""

    def __init__(self, gpu: Gpu, networks: Networks, batch: int) -> None:
        from clip4str.benchmarks.gpu.sides import PlainProgram

        self.model = networks.half
        self.pixels = random_pixels(networks.config, batch, gpu.device).to(gpu.half)
        program = PlainProgram(self.model, batch)
        self.replay = gpu.graph(lambda: program(self.pixels))
        self.tower = gpu.graph(torch.inference_mode()(lambda: self.model.clip_model.visual(self.pixels)))

    def __call__(self, pixels: Tensor) -> list[str]:
        self.pixels.copy_(pixels)
        ids, _ = self.replay()
        return [self.model.charset.decode(row) for row in ids.tolist()]


def end_to_end(
    gpu: Gpu, report: Reporter, config: Config, batches: Sequence[int], device: Device, rate: float | None
) -> None:
    """batches: the most wanted first. device: as measured, to predict with. rate: TFLOP/s measured."""
    networks = Networks(gpu, config)
    report.values["batches"] = {}
    for place, batch in enumerate(batches):
        share = report.clock.left() / (len(batches) - place)
        predicted = predict_program(device, config, batch)
        values = report.values["batches"][str(batch)] = {"batch": batch, "predicted": predicted}
        report.attempt(f"batch {batch}", gpu.least(3), _batch, gpu, report, networks, values, share, rate)
        gpu.free()


def _batch(
    gpu: Gpu, report: Reporter, networks: Networks, values: dict[str, Any], share: float, rate: float | None
) -> None:
    batch, end = values["batch"], time.monotonic() + share
    sides: dict[str, Side] = {}
    made: dict[str, Callable[[], Side]] = {
        "ours": lambda: Graphed(gpu, networks, batch),
        "published_half": lambda: PublishedWay(networks.half, gpu.device),
        "published_fp32": lambda: PublishedWay(networks.model, gpu.device),
        "published_autocast": lambda: PublishedWay(networks.model, gpu.device, autocast=True),
        "plain": lambda: Plain(gpu, networks, batch),
    }
    pixels = [random_pixels(networks.config, batch, gpu.device, seed) for seed in range(_PIXELS)]
    for name, make in made.items():
        side = report.attempt(f"batch {batch}, {name}", gpu.least(1), _warm, make, pixels[0])
        sides |= {name: side} if side else {}
    values["sides"] = take_turns(gpu, sides, pixels, max(1.0, 0.6 * (end - time.monotonic())))
    for name in ("ours", "plain"):
        if name in sides:
            report.attempt(
                f"batch {batch}, {name} on the device", gpu.least(1), _device, gpu, sides[name], values, name
            )
    for name, side in sides.items():
        report.attempt(f"batch {batch}, {name}, launches", gpu.least(2), _launches, gpu, side, pixels[0], values, name)
    summarize(values, networks.config, rate)


def _warm(make: Callable[[], Side], pixels: Tensor) -> Side:
    side = make()
    for _ in range(2):
        side(pixels)
    return side


def take_turns(gpu: Gpu, sides: dict[str, Side], pixels: Sequence[Tensor], seconds: float, most: int = 200) -> Any:
    """Wall time of every side in microseconds, A B C A B C, over pixels that change from turn to turn.

    Sides that take over 20 times as long as the quickest sit out four turns of five.
    """
    taken: dict[str, list[float]] = {name: [] for name in sides}
    deadline = time.monotonic() + seconds
    gc.collect()
    gc.disable()
    try:
        for turn in range(2 if gpu.kind == "cpu" else most):
            if turn >= 3 and time.monotonic() > deadline:
                break
            quickest = min((t[-1] for t in taken.values() if t), default=0.0)
            for name, side in sides.items():
                if turn >= 5 and turn % 5 and taken[name][-1] > 20 * quickest:
                    continue
                gpu.sync()
                began = time.perf_counter()
                side(pixels[turn % len(pixels)])
                taken[name].append(time.perf_counter() - began)
    finally:
        gc.enable()
    return {name: spread(times) for name, times in taken.items() if times}


def _device(gpu: Gpu, side: Any, values: dict[str, Any], name: str) -> None:
    """Time on the device alone: the graph of the whole and that of the image tower, alternating."""
    whole, tower = [], []
    for _ in range(5):
        whole += gpu.seconds(side.replay, 20, limit=0.3)
        tower += gpu.seconds(side.tower, 20, limit=0.3)
    values.setdefault("device", {})[name] = {"whole": spread(whole), "tower": spread(tower)}


def _launches(gpu: Gpu, side: Side, pixels: Tensor, values: dict[str, Any], name: str) -> None:
    values.setdefault("launches", {})[name] = gpu.kernels(lambda: side(pixels))


def summarize(values: dict[str, Any], config: Config, rate: float | None) -> None:
    """The figures that targets and tables show."""
    sides, summary = values.get("sides", {}), values.setdefault("summary", {})
    ours = sides.get("ours", {}).get("median")
    for name, times in sides.items():
        if ours and name != "ours":
            summary[f"{name}_over_ours"] = round(times["median"] / ours, 3)
    eager = {name: times["median"] for name, times in sides.items() if name in EAGER}
    if ours and len(eager) == len(EAGER):  # the best of some would flatter ours
        best = min(eager, key=lambda name: eager[name])
        summary |= {"best_eager": best, "best_eager_over_ours": round(eager[best] / ours, 3)}
    device = values.get("device", {}).get("ours")
    if device:
        whole, tower = device["whole"]["median"], device["tower"]["median"]
        flops = total_flops(kernel_launches.program(config, values["batch"]))
        summary |= {"times_tower": round(whole / tower, 3), "after_share": round((whole - tower) / whole, 4)}
        summary["tflops"] = round(flops / whole / 1e6, 2)
        if rate:
            summary["rate_share"] = round(flops / whole / 1e6 / rate, 4)


def compiled(gpu: Gpu, report: Reporter, config: Config, batches: Sequence[int]) -> None:
    """torch.compile of the reference beside ours. There may be no time: compiling takes minutes on a slow host."""
    from clip4str.benchmarks.gpu.sides import CompiledReference

    networks = Networks(gpu, config)
    mode = None if gpu.kind == "cpu" else "reduce-overhead"
    report.values |= {"mode": mode or "eager", "batches": {}}

    def both(batch: int) -> None:
        pixels = [random_pixels(config, batch, gpu.device, seed) for seed in range(_PIXELS)]
        began = time.perf_counter()
        sides = {"compiled": _warm(lambda: CompiledReference(networks.half, gpu.half, mode), pixels[0])}
        values: dict[str, Any] = {"batch": batch, "compile_seconds": round(time.perf_counter() - began, 1)}
        report.values["batches"][str(batch)] = values
        ours = report.attempt(f"batch {batch}, ours", 0, _warm, lambda: Graphed(gpu, networks, batch), pixels[0])
        sides |= {"ours": ours} if ours else {}
        values["sides"] = take_turns(gpu, sides, pixels, min(10.0, report.clock.left() / 2))
        summarize(values, config, None)

    for batch in batches:
        report.attempt(f"torch.compile at batch {batch}", gpu.least(30), both, batch)
        gpu.free()
