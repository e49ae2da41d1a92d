"""The first minute on a device: one kernel of each kind in half precision beside its reference, and the sanitizer over
a decoder pass of one word and of three."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from clip4str.benchmarks.gpu.device import Gpu
from clip4str.benchmarks.gpu.kernels import cases_of
from clip4str.benchmarks.gpu.supervisor import Reporter

OPERATORS = ("linear", "cross_attention", "decode_pass", "tokenize", "crop_resize", "resize", "thumbnail", "collapse")
LIMIT = 1e-2  # ||kernel - reference|| / ||reference|| in half precision
LIMIT_WHOLE = 0.05  # share of whole numbers that differ: a pass of random weights has positions that are all but a tie
WORDS = (1, 3)
SANITIZER = "compute-sanitizer"
_OPTIONS: dict[str, dict[str, Any]] = {"decode_pass": {"mode": "causal"}}


def each_kind(gpu: Gpu, report: Reporter, operators: Sequence[str] = OPERATORS) -> None:
    """report.values: by operator the case and how far it is from its reference."""
    for operator in operators:
        report.attempt(operator, 0, _compare, gpu, report, operator)
        gpu.free()


def _compare(gpu: Gpu, report: Reporter, name: str) -> None:
    operator = getattr(importlib.import_module(f"clip4str.kernels.{name}"), name)
    cases = [case for case in cases_of(name, gpu) if case.function.__name__ in (name, "whole_pass")]
    case = min(cases, key=lambda case: case.bytes + case.flops)
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
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    try:
        done = subprocess.run([*command, sys.executable, "-c", code], env=environment, capture_output=True, text=True,
                              timeout=max(1.0, report.clock.left()))  # fmt: skip
    except subprocess.TimeoutExpired as error:
        return report.fail("memcheck", f"not finished after {error.timeout:.0f} s")
    said = (done.stdout + done.stderr).strip().splitlines()
    report.values |= {"tool": tool if command else "none", "exit_code": done.returncode, "last": said[-1:]}
    if done.returncode:
        report.fail("memcheck", " | ".join(said[-6:])[-600:])


def passes(device: str, words: Sequence[int]) -> None:
    """What the sanitizer looks at."""
    from clip4str.kernels.decode_pass import bench, decode_pass

    half, most = (torch.float16, 8) if device == "cuda" else (torch.bfloat16, 8)
    name = f"{'base16' if device == 'cuda' else 'small'} pass, text 16, batch {most}"
    given = next(case for case in bench.cases() if case.name == name).make(torch.device(device), half)
    for n in words:
        some: dict[str, Any] = {k: v[:n] if isinstance(v, Tensor) else v for k, v in given.items()}
        with torch.inference_mode():
            out = decode_pass(**some, mode="causal")
        print(f"{n} words: {out.last.tolist()}")
