"""Every case of every operator's bench.py: time, achieved GB/s and TFLOP/s beside the ceilings, torch's own operators,
and sweeps of configurations."""

from __future__ import annotations

import itertools
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import torch

from clip4str.benchmarks.devices import Device
from clip4str.benchmarks.gpu.cases import OTHER, cases_of, rank
from clip4str.benchmarks.gpu.device import Gpu, spread
from clip4str.benchmarks.gpu.supervisor import Reporter
from clip4str.benchmarks.gpu.warm import ahead, launch_configs

_LAUNCHES = {"cross_attention": 2, "decode_pass": 6}
_SETS, _SETS_BYTES, _SETS_SECONDS = 40, 2**30, 0.5
_COMPILING = 0.6  # of the sweep's time at most


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
    if gpu.kind != "cpu":
        given = operators, gpu.capability, gpu.half
        report.values["problems"] = ahead(gpu, launch_configs, given, _COMPILING * report.clock.left())
    wanted = [(o, case) for o in operators for case in report.attempt(o, 0, cases_of, o, gpu) or [] if case.configs]
    for operator, case in sorted(wanted, key=lambda item: rank(item[1].name)):
        if rank(case.name) == OTHER and gpu.kind != "cpu":
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
