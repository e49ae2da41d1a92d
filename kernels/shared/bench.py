"""Shared by the operators' bench.py: cases as plain data, and a table of their times.

benchmarks/gpu_suite.py times the same cases.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from clip4str.core.console import fail
from clip4str.core.errors import Clip4StrError, DeviceError

SIZES = ("small", "base16", "large", "huge")
BATCHES = (1, 8, 64, 256)
Arguments = dict[str, Any]


@dataclass(frozen=True)
class Case:
    """One timing: function(**make(device, dtype)), and the least it must move and compute.

    make: allocates the arguments, `config` not among them. bytes: inputs read and outputs written once, in half
    precision. flops: of matrix products, nothing padded. configs: what a sweep passes as `config`, the chosen first.
    baseline: the same from the library's operators, same arguments.
    """

    name: str
    function: Callable[..., Tensor]
    make: Callable[[torch.device, torch.dtype], Arguments]
    bytes: int
    flops: int
    configs: Sequence[Any] = field(default=())
    baseline: Callable[..., Tensor] | None = None


def seeded(device: torch.device, seed: int = 0) -> torch.Generator | None:
    """What random arguments are drawn with; None on the meta device, where nothing is drawn."""
    return None if device.type == "meta" else torch.Generator(device).manual_seed(seed)


def run_cases(prog: str, found: Sequence[Case]) -> int:
    """Time all cases under CUDA graphs (weights and inputs warm in the L2 cache where they fit) and print them."""
    try:
        if not torch.cuda.is_available():
            raise DeviceError("no GPU here; kernels are timed on one")
        device = torch.device("cuda")
        print(f"{torch.cuda.get_device_name(device)}, float16, medians")
        print(f"{'case':36}{'us':>9}{'GB/s':>9}{'TFLOP/s':>9}{'torch us':>10}")
        for case in found:
            with torch.no_grad():
                arguments = case.make(device, torch.float16)
                time = _microseconds(case.function, arguments)
                torch_time = _microseconds(case.baseline, arguments) if case.baseline else float("nan")
            rates = f"{case.bytes / time / 1e3:9.0f}{case.flops / time / 1e6:9.1f}"
            print(f"{case.name:36}{time:9.1f}{rates}{torch_time:10.1f}", flush=True)
        return 0
    except Clip4StrError as error:
        return fail(prog, error)
    except KeyboardInterrupt:
        return 130


def _microseconds(function: Callable[..., Tensor], arguments: Arguments) -> float:
    from triton.testing import do_bench_cudagraph

    return 1e3 * do_bench_cudagraph(lambda: function(**arguments), return_mode="median")
