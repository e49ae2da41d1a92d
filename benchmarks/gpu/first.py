"""The first minute on a device: one kernel of each kind in half precision beside its reference, and the sanitizer over
a decoder pass of one word and of three."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor

from clip4str.benchmarks.gpu.cases import all_cases, cases_of
from clip4str.benchmarks.gpu.device import Gpu
from clip4str.benchmarks.gpu.supervisor import GRACE, Reporter
from clip4str.benchmarks.gpu.warm import META, OPERATORS, ahead, launch_each

LIMIT = 1e-2  # ||kernel - reference|| / ||reference|| in half precision
LIMIT_WHOLE = 0.05  # share of whole numbers that differ: a pass of random weights has positions that are all but a tie
WORDS = (1, 3)
SANITIZER = "compute-sanitizer"
_OVERRUN = GRACE - 5  # seconds past its share that memcheck may take: what is cut short says nothing
_COMPILING = 0.6  # of a section's time at most
_OPTIONS: dict[str, dict[str, Any]] = {"decode_pass": {"mode": "causal"}}


def each_kind(gpu: Gpu, report: Reporter, operators: Sequence[str] = OPERATORS) -> None:
    """report.values: by operator the case and how far it is from its reference."""
    if gpu.kind != "cpu":
        given = operators, gpu.capability, gpu.half
        report.values["problems"] = ahead(gpu, launch_kinds, given, _COMPILING * report.clock.left())
    for operator in operators:
        report.attempt(operator, 0, _compare, gpu, report, operator)
        gpu.free()


def launch_kinds(operators: Sequence[str], capability: tuple[int, int], dtype: torch.dtype) -> None:
    """The same kernels on the meta device, to be compiled. Raises RuntimeError for those that fail, at the end."""

    def launch(name: str) -> None:
        case = _smallest(name, all_cases(name, capability))
        _operator(name)(**{**case.make(META, dtype), **_OPTIONS.get(name, {})})

    launch_each([(name, partial(launch, name)) for name in operators])


def _operator(name: str) -> Callable[..., Any]:
    found: Callable[..., Any] = getattr(importlib.import_module(f"clip4str.kernels.{name}"), name)
    return found


def _smallest(name: str, cases: Sequence[Any]) -> Any:
    """Of those of the whole operator."""
    whole = [case for case in cases if case.function.__name__ in (name, "whole_pass")]
    return min(whole, key=lambda case: case.bytes + case.flops)


def _compare(gpu: Gpu, report: Reporter, name: str) -> None:
    operator, case = _operator(name), _smallest(name, cases_of(name, gpu))
    given = {**case.make(gpu.device, gpu.half), **_OPTIONS.get(name, {})}
    with torch.inference_mode():
        pairs = list(zip(_tensors(operator(**given)), _tensors(operator(**given, implementation="reference"))))
    found = [(distance(*pair), LIMIT if pair[0].is_floating_point() else LIMIT_WHOLE) for pair in pairs]
    report.values[name] = {"case": case.name, "distances": [round(far, 6) for far, _ in found]}
    if not found or any(far > limit for far, limit in found):
        report.fail(name, f"{case.name}: away from its reference by {[f'{far:.2g}' for far, _ in found]}")


def _tensors(value: Any) -> list[Tensor]:
    return [part for part in (value if isinstance(value, tuple) else (value,)) if isinstance(part, Tensor)]


def distance(out: Tensor, reference: Tensor) -> float:
    """||out - reference|| / ||reference||, of whole numbers the share that differs; a billion if it is not finite."""
    if out.shape != reference.shape or (out.is_floating_point() and not torch.isfinite(out).all()):
        return 1e9
    if not out.is_floating_point():
        return float((out != reference).float().mean())
    return float((out.double() - reference.double()).norm() / reference.double().norm().clamp_min(1e-30))


def sanitizer(gpu: Gpu, report: Reporter) -> None:
    """A pass of one word and of three in a process of its own, under memcheck where CUDA's toolkit is installed."""
    tool = shutil.which(SANITIZER)
    if tool is None and gpu.kind == "cuda":
        return report.skip("memcheck", f"{SANITIZER} is not on the PATH; CUDA's toolkit has it")
    code = f"from clip4str.benchmarks.gpu.first import passes; passes({gpu.device.type!r}, {WORDS})"
    command = [tool, "--tool", "memcheck", "--error-exitcode", "9"] if tool and gpu.kind == "cuda" else []
    if command:
        report.values["problems"] = ahead(gpu, launch_passes, (WORDS,), _COMPILING * report.clock.left())
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run([*command, sys.executable, "-c", code], env=environment, capture_output=True, text=True,
                              timeout=max(1.0, report.clock.left() + _OVERRUN))  # fmt: skip
    except subprocess.TimeoutExpired as error:
        return report.out_of_time("memcheck", error.timeout)
    said = (done.stdout + done.stderr).strip().splitlines()
    report.values |= {"tool": tool if command else "none", "exit_code": done.returncode, "last": said[-1:]}
    if done.returncode:
        report.fail("memcheck", " | ".join(said[-6:])[-600:])


def passes(device: str, words: Sequence[int]) -> None:
    """What the sanitizer looks at."""
    for n, out in _passes(torch.device(device), words):
        print(f"{n} words: {out.last.tolist()}")


def launch_passes(words: Sequence[int]) -> None:
    """The same kernels on the meta device, to be compiled."""
    for _ in _passes(META, words):
        pass


def _passes(device: torch.device, words: Sequence[int]) -> Iterator[tuple[int, Any]]:
    from clip4str.kernels.decode_pass import bench, decode_pass

    network, half = ("small", torch.bfloat16) if device.type == "cpu" else ("base16", torch.float16)
    name = f"{network} pass, text 16, batch 8"
    given = next(case for case in bench.cases() if case.name == name).make(device, half)
    for n in words:
        some: dict[str, Any] = {k: v[:n] if isinstance(v, Tensor) else v for k, v in given.items()}
        with torch.inference_mode():
            yield n, decode_pass(**some, mode="causal")
