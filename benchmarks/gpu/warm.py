"""What sections launch, compiled before, in many processes that launch nothing: one by one would take all the time."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from clip4str.benchmarks.gpu.cases import all_cases, rank
from clip4str.benchmarks.gpu.device import Gpu
from clip4str.benchmarks.gpu.supervisor import Reporter
from clip4str.core.errors import first_line
from clip4str.core.reading import Decoding
from clip4str.kernels.shared.ahead import compile_ahead, meta
from clip4str.runtime.backends.pytorch.prepared import launch_buckets
from clip4str.runtime.backends.pytorch.program import Program

META = torch.device("meta")
OPERATORS = (
    "cross_attention", "decode_pass", "linear", "short_attention", "crop_resize", "resize", "thumbnail", "tokenize",
    "collapse",
)  # fmt: skip
TIMED = (1, 64, 8, 256)  # rows that are timed
# Rows by network and type; None: half precision. What is not timed is read by tests/runtime/test_network_on_device.py.
NETWORKS: dict[str, dict[torch.dtype | None, Sequence[int]]] = {
    "base16": {None: (*TIMED, 128, 4, 2, 16, 32), torch.float32: (8,)},
    "small": {None: TIMED, torch.float32: (256,), torch.bfloat16: (256,)},
    "large": {None: TIMED},
}
_SWEPT = 2  # ranks of cases whose configurations are compiled for the sweep
_MOST_PROCESSES = 14
Programs = Sequence[tuple[Program, Sequence[int]]]


def warm(gpu: Gpu, report: Reporter) -> None:
    """A kernel that cannot be compiled is a failure here and where it is launched."""
    dry = gpu.kind == "cpu"
    programs = [] if dry else _programs(gpu)
    gpu.free()
    arguments = (programs, ("linear",) if dry else OPERATORS, gpu.capability, gpu.half, dry)
    problems = ahead(gpu, launch_all, arguments, report.clock.left())
    report.values |= {"processes": _processes(), "problems": problems}
    for problem in problems:
        report.fail("compiling ahead", problem)


def ahead(gpu: Gpu, launch: Callable[..., object], arguments: Sequence[Any], seconds: float) -> list[str]:
    """Compiles for this GPU what launch(*arguments) launches on the meta device; what could not be, in a line each."""
    return compile_ahead(launch, arguments, gpu.capability, _processes(), max(1.0, seconds))


def launch_all(
    programs: Programs, operators: Sequence[str], capability: tuple[int, int], dtype: torch.dtype, few: bool
) -> None:
    """What networks and operators launch as shipped, on the meta device. few: a single case of each operator.

    Raises RuntimeError at the end, for those that failed: one that fails keeps no other from being compiled.
    """
    calls = [(f"batches of {list(b)}", partial(launch_buckets, program, b)) for program, b in programs]
    for operator in operators:
        cases = sorted(all_cases(operator, capability), key=lambda case: rank(case.name))
        calls += [(f"{operator}: {case.name}", partial(_launch, case, dtype)) for case in cases[: 1 if few else None]]
    launch_each(calls)


def launch_configs(operators: Sequence[str], capability: tuple[int, int], dtype: torch.dtype) -> None:
    """What the sweep tries. Raises RuntimeError as launch_all does."""
    launch_each(
        [
            (f"{operator}: {case.name}, {config}", partial(_launch, case, dtype, config=config))
            for operator in operators
            for case in all_cases(operator, capability)
            if rank(case.name) < _SWEPT
            for config in case.configs
            if config is not None
        ]
    )


def _launch(case: Any, dtype: torch.dtype, **config: Any) -> None:
    case.function(**case.make(META, dtype), **config)


def launch_each(calls: Sequence[tuple[str, Callable[[], object]]]) -> None:
    failed = []
    for what, call in calls:
        try:
            call()
        except Exception as error:
            failed.append(f"{what}: {type(error).__name__}: {first_line(error)}")
    if failed:
        raise RuntimeError(f"{len(failed)} cases: {failed[0]}")


def _programs(gpu: Gpu) -> list[tuple[Program, Sequence[int]]]:
    from clip4str.benchmarks.gpu.fused import fused
    from clip4str.benchmarks.gpu.networks import sizes
    from clip4str.benchmarks.random_weights import random_network

    found = []
    for name, types in NETWORKS.items():
        network = random_network(sizes(dry_run=False)[name], gpu.device)
        for dtype, batches in types.items():
            weights, tables = fused(network, dtype or gpu.half, gpu.device)
            found.append((meta(Program(weights, tables, Decoding())), batches))
    return found


def _processes() -> int:
    return max(1, min(_MOST_PROCESSES, (os.cpu_count() or 2) - 2))
