"""Every case of every operator's bench.py: time, achieved GB/s and TFLOP/s beside the ceilings, torch's own operators,
and sweeps of configurations."""

from __future__ import annotations

import importlib
import itertools
import math
import os
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch

from clip4str.benchmarks.devices import Device
from clip4str.benchmarks.gpu.device import Gpu, spread
from clip4str.benchmarks.gpu.supervisor import Reporter
from clip4str.core.reading import Decoding
from clip4str.kernels.shared.ahead import compile_ahead, meta
from clip4str.runtime.backends.pytorch.prepared import launch_buckets
from clip4str.runtime.backends.pytorch.program import Program

NETWORKS, BATCHES = ("base16", "small", "large"), (1, 64, 8, 256)  # the most wanted first
OPERATORS = ("cross_attention", "decode_pass", "linear", "crop_resize", "tokenize", "collapse")
_LAUNCHES = {"cross_attention": 2, "decode_pass": 6}
_ORDER = (("base16", 64), ("base16", 1), ("small", 64), ("small", 1), ("large", 64), ("large", 1), ("base16", 8))
_NETWORKS = ("small", "base32", "base16", "large", "huge")
_NO_REFERENCE = ("self_attention", "head")
_SETS, _SETS_BYTES, _SETS_SECONDS = 40, 2**30, 0.5


def cases_of(operator: str, gpu: Gpu) -> list[Any]:
    """The most wanted first. Raises ImportError if the operator has no bench.py."""
    if gpu.kind == "cpu":  # kernels that are only part of an operator have no reference
        cases = _all_cases(operator, (9, 0))
        return [c for c in cases if c.flops + c.bytes < 3e7 and c.function.__name__ not in _NO_REFERENCE][:1]
    cases = _all_cases(operator, (gpu.properties.major, gpu.properties.minor))
    return sorted(cases, key=lambda case: _rank(case.name))


def _all_cases(operator: str, capability: tuple[int, int]) -> list[Any]:
    module = importlib.import_module(f"clip4str.kernels.{operator}.bench")
    return list(module.cases(capability) if module.cases.__code__.co_argcount else module.cases())


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
    cold, cold_bytes = _measure(gpu, case, case.function), _cycled(gpu, case)
    warm = _measure(gpu, case, case.function, sets=1)
    bound, us = device.bound_us(case.bytes, case.flops), cold["median"]
    values = {
        "name": case.name,
        "cold": cold,
        "cold_is_cold": cold_bytes
        >= 2 * gpu.l2_bytes,  # else some of it lies in the L2 cache again when its turn comes
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
    sets = sets or _sets(gpu, case)
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


def _sets(gpu: Gpu, case: Any) -> int:
    sets = max(1, min(_SETS, math.ceil(2 * gpu.l2_bytes / case.bytes), _SETS_BYTES // max(1, case.bytes)))
    return min(sets, 2) if gpu.kind == "cpu" else sets


def _cycled(gpu: Gpu, case: Any) -> int:
    """Bytes that are touched until a set's turn comes again."""
    return int(_sets(gpu, case) * case.bytes)


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


def warm(gpu: Gpu, report: Reporter) -> None:
    """Compile what will be launched into Triton's cache, in parallel processes that launch nothing: one by one it would
    take all the time. A kernel that cannot be compiled is a failure here and where it is launched."""
    count = max(1, min(14, (os.cpu_count() or 2) - 2))
    dry = gpu.kind == "cpu"
    programs = [] if dry else [meta(_program(gpu, name)) for name in NETWORKS]
    gpu.free()
    capability = (9, 0) if dry else (gpu.properties.major, gpu.properties.minor)
    arguments = (programs, ("linear",) if dry else OPERATORS, capability, gpu.half, dry)
    problems = compile_ahead(launch_all, arguments, capability, count, max(1.0, report.clock.left()))
    report.values |= {"processes": count, "problems": problems}
    for problem in problems:
        report.fail("compiling ahead", problem)


def launch_all(
    programs: Sequence[Program], operators: Sequence[str], capability: tuple[int, int], dtype: torch.dtype, few: bool
) -> None:
    """All that the suite times, on the meta device. few: a single case of each operator."""
    for program in programs:
        launch_buckets(program, BATCHES)
    device = torch.device("meta")
    for operator in operators:
        cases = sorted(_all_cases(operator, capability), key=lambda case: _rank(case.name))
        for case in cases[:1] if few else cases:
            configs = [c for c in case.configs if c is not None] if _rank(case.name) < 2 and not few else []
            for how in ({}, *({"config": config} for config in configs)):
                with suppress(Exception):  # the section that times it says so; the other kernels must be compiled
                    case.function(**case.make(device, dtype), **how)


def _program(gpu: Gpu, name: str) -> Program:
    from clip4str.benchmarks.gpu.fused import fused
    from clip4str.benchmarks.gpu.networks import sizes
    from clip4str.benchmarks.random_weights import random_network

    weights, tables = fused(random_network(sizes(dry_run=False)[name], gpu.device), gpu.half, gpu.device)
    return Program(weights, tables, Decoding())
