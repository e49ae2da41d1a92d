"""Every case of every operator's bench.py: time, achieved GB/s and TFLOP/s beside the ceilings, torch's own operators,
and sweeps of configurations."""

from __future__ import annotations

import importlib
import itertools
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import torch

from clip4str.benchmarks.devices import Device
from clip4str.benchmarks.gpu.device import Gpu, spread
from clip4str.benchmarks.gpu.supervisor import Reporter

NETWORKS, BATCHES = ("base16", "small", "large"), (1, 64, 8, 256)  # the most wanted first
OPERATORS = ("cross_attention", "decode_pass", "linear", "crop_resize", "tokenize", "collapse")
_LAUNCHES = {"cross_attention": 2, "decode_pass": 6}
_ORDER = (("base16", 64), ("base16", 1), ("small", 64), ("small", 1), ("large", 64), ("large", 1), ("base16", 8))
_NETWORKS = ("small", "base32", "base16", "large", "huge")
_NO_REFERENCE = ("self_attention", "head")
_SETS, _SETS_BYTES, _SETS_SECONDS = 40, 2**30, 0.5


def cases_of(operator: str, gpu: Gpu) -> list[Any]:
    """The most wanted first. Raises ImportError if the operator has no bench.py."""
    module = importlib.import_module(f"clip4str.kernels.{operator}.bench")
    if gpu.kind == "cpu":  # kernels that are only part of an operator have no reference
        return [c for c in module.cases() if c.flops + c.bytes < 3e7 and c.function.__name__ not in _NO_REFERENCE][:1]
    takes_capability = bool(module.cases.__code__.co_argcount)
    cases = module.cases((gpu.properties.major, gpu.properties.minor)) if takes_capability else module.cases()
    return sorted(cases, key=lambda case: _rank(case.name))


def _rank(name: str) -> int:
    first = name.split(" ")[0]
    for place, (network, batch) in enumerate(_ORDER):
        if network == (first if first in _NETWORKS else "base16") and name.endswith(f"batch {batch}"):
            return place
    return len(_ORDER)


def time_kernels(gpu: Gpu, report: Reporter, operators: Sequence[str], device: Device) -> None:
    """Operators in turn, so that a lack of time costs each its least wanted cases."""
    lists: dict[str, list[Any]] = {}
    for operator in operators:
        report.values[operator] = []
        lists[operator] = report.attempt(operator, 0, cases_of, operator, gpu) or []
    rounds = itertools.zip_longest(*lists.values())
    turns = [(o, case) for cases in rounds for o, case in zip(lists, cases) if case is not None]
    while turns and report.clock.left() >= gpu.least(3):
        operator, case = turns.pop(0)
        values = report.attempt(f"{operator}: {case.name}", 0, _time, gpu, operator, case, device)
        report.values[operator] += [values] if values else []
        gpu.free()
    if turns:
        report.skip(f"{len(turns)} cases")


def _time(gpu: Gpu, operator: str, case: Any, device: Device) -> dict[str, Any]:
    cold = _measure(gpu, case, case.function)
    warm = _measure(gpu, case, case.function, sets=1)
    bound, us = device.bound_us(case.bytes, case.flops), cold["median"]
    values = {
        "name": case.name,
        "cold": cold,
        "warm_us": warm["median"],
        "gbs": round(case.bytes / us / 1e3, 1),
        "tflops": round(case.flops / us / 1e6, 2),
        "bound_us": round(bound, 3),
        "of_bound": round(bound / us, 4),
        "predicted_us": round(device.kernel_us(case.bytes, case.flops, _LAUNCHES.get(operator, 1)), 2),
    }
    if case.baseline is not None:
        with suppress(Exception):  # torch's own operators may not support every case
            values["torch_us"] = _measure(gpu, case, case.baseline)["median"]
            values["times_torch"] = round(values["torch_us"] / us, 3)
    return values


def _measure(gpu: Gpu, case: Any, function: Any, sets: int | None = None, repeats: int = 30, **more: Any) -> Any:
    """Microseconds of a call within a graph of many. sets: how many sets of arguments take turns; by default enough
    that none is in the L2 cache when its turn comes."""
    if sets is None:
        sets = max(1, min(_SETS, math.ceil(2 * gpu.l2_bytes / case.bytes), _SETS_BYTES // max(1, case.bytes)))
        sets = min(sets, 2) if gpu.kind == "cpu" else sets
    with torch.inference_mode():
        end, arguments = time.monotonic() + _SETS_SECONDS, [case.make(gpu.device, gpu.half)]
        while len(arguments) < sets and time.monotonic() < end:
            arguments.append(case.make(gpu.device, gpu.half))
        sets = len(arguments)
        calls = sets if sets > 1 else (20 if case.bytes < 1e8 and gpu.kind != "cpu" else 2)

        def many() -> None:
            for i in range(calls):
                function(**arguments[i % sets], **more)

        try:
            call, captured = gpu.graph(many, warmups=1), True
        except Exception:  # not everything can be captured: host quads, an operator that synchronises
            if not gpu.alive():
                raise
            call, captured = many, False
        times = spread(gpu.seconds(call, repeats, limit=0.4, inner=calls))
    return times if captured else {**times, "graph": False}


def sweep(gpu: Gpu, report: Reporter, operators: Sequence[str]) -> None:
    """All configurations of the most important cases; `shipped` is the operator's own choice."""
    report.values["cases"] = []
    wanted = [(o, case) for o in operators for case in report.attempt(o, 0, cases_of, o, gpu) or [] if case.configs]
    for operator, case in sorted(wanted, key=lambda item: _rank(item[1].name)):
        if _rank(case.name) == len(_ORDER) and gpu.kind != "cpu":
            break
        values = report.attempt(f"{operator}: {case.name}", gpu.least(4), _sweep, gpu, report, operator, case)
        report.values["cases"] += [values] if values else []
        gpu.free()


def _sweep(gpu: Gpu, report: Reporter, operator: str, case: Any) -> dict[str, Any]:
    shipped = _measure(gpu, case, case.function)["median"]
    tried: list[dict[str, Any]] = []
    for config in case.configs[:2] if gpu.kind == "cpu" else case.configs:
        if report.clock.left() < gpu.least(2):
            break
        try:
            times = _measure(gpu, case, case.function, repeats=10, config=config)
            tried.append({"config": str(config), "us": times["median"]})
        except Exception as error:  # e.g. too much shared memory for this device
            tried.append({"config": str(config), "error": f"{type(error).__name__}: {error}"[:200]})
            if not gpu.alive():
                raise
    timed = sorted((t for t in tried if "us" in t), key=lambda t: t["us"])
    return {
        "operator": operator,
        "name": case.name,
        "shipped_us": shipped,
        "best": timed[0] if timed else None,
        "all": timed[:12] + [t for t in tried if "error" in t],
    }


def warm(gpu: Gpu, report: Reporter, script: Path, processes: int | None = None) -> None:
    """Compile kernels into Triton's cache on disk in parallel processes: one by one it would take all the time."""
    count = processes or max(1, min(14, (os.cpu_count() or 2) - 2))
    options = ["--dry-run"] if gpu.kind == "cpu" else []
    children = [
        subprocess.Popen([sys.executable, str(script), "--warm-shard", str(i), str(count), *options],
                         stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for i in range(count)
    ]  # fmt: skip
    try:
        while any(child.poll() is None for child in children) and report.clock.left() > 0:
            time.sleep(0.05)
    finally:
        unfinished = [child for child in children if child.poll() is None]
        for child in unfinished:
            child.kill()
        for child in children:
            child.wait()
    report.values |= {"processes": count, "unfinished": len(unfinished)}
    report.values["crashed"] = sum(child.returncode not in (0, -9) for child in children)


def warm_shard(gpu: Gpu, shard: int, of: int) -> None:
    """One process's share: call once what will be timed. Errors are reported by later sections."""
    cases = sorted((case for o in OPERATORS for case in _quietly(o, gpu)), key=lambda case: _rank(case.name))
    swept = [(case, config) for case in cases if _rank(case.name) < 2 for config in case.configs if config is not None]
    programs = [*itertools.product(NETWORKS, BATCHES)][: 1 if gpu.kind == "cpu" else None]
    work: list[Callable[[], Any]] = [partial(_program, gpu, *which) for which in programs]
    work += [partial(_call, gpu, case) for case in cases]
    work += [partial(_call, gpu, case, config=config) for case, config in swept]
    for call in work[shard::of]:
        with suppress(Exception), torch.inference_mode():
            call()
            gpu.free()


def _call(gpu: Gpu, case: Any, **more: Any) -> None:
    case.function(**case.make(gpu.device, gpu.half), **more)


def _program(gpu: Gpu, name: str, batch: int) -> None:
    from clip4str.benchmarks.gpu.fused import FusedProgram, fused
    from clip4str.benchmarks.gpu.networks import sizes
    from clip4str.benchmarks.random_weights import random_network

    model = random_network(sizes(gpu.kind == "cpu")[name], gpu.device)
    weights, tables = fused(model, gpu.half, gpu.device)
    FusedProgram(weights, tables, batch, model.charset).run()


def _quietly(operator: str, gpu: Gpu) -> list[Any]:
    with suppress(Exception):
        return cases_of(operator, gpu)
    return []
