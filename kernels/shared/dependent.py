"""Programmatic dependent launch: a kernel starts before the one ahead of it on the stream has ended.

A kernel that takes part calls `launch_dependents` first, so that its successor may start as soon as all of its own
programs run; then `prefetch_rows` of weights; then `wait`, before which it must neither read nor write memory: after it
the kernel ahead has ended and what it wrote is there. As every kernel waits, so has the one ahead of that.

Fetching into the L2 cache before the wait is no access: all programs of all kernels see that cache, so weights may even
have been written by the kernel ahead. Without the launch attribute both instructions do nothing, below compute
capability 9.0 (DEPENDENT False) there are none.
"""

from __future__ import annotations

import functools

import torch
import triton
import triton.language as tl
from triton.language.extra.cuda import gdc_launch_dependents, gdc_wait

from ..options import options
from .launch import capability_of, interpreted, on_gpu
from .tiles import DEPENDENT_CAPABILITY

DRIVER = 12030  # of CUDA: the first that captures such launches in graphs
LINE = tl.constexpr(128)  # bytes that one request fetches


@triton.jit
def launch_dependents(DEPENDENT: tl.constexpr):
    if DEPENDENT:
        gdc_launch_dependents()


@triton.jit
def wait(DEPENDENT: tl.constexpr):
    if DEPENDENT:
        gdc_wait()


@triton.jit
def prefetch_rows(weight, first, rows, K: tl.constexpr, ROWS: tl.constexpr, DEPENDENT: tl.constexpr):
    """Rows first .. first + ROWS - 1 of weight (rows, K), contiguous, into the L2 cache; the last row past the end."""
    if DEPENDENT:
        EACH: tl.constexpr = LINE * 8 // weight.dtype.element_ty.primitive_bitwidth
        LINES: tl.constexpr = triton.next_power_of_2((ROWS * K + EACH - 1) // EACH)
        begin = first.to(tl.int64) * K
        end = tl.minimum(first + ROWS, rows).to(tl.int64) * K - 1
        lines = tl.minimum(begin + tl.arange(0, LINES) * EACH, end)
        tl.inline_asm_elementwise(
            "prefetch.global.L2 [$1]; // dummy $0", "=r,l", [weight + lines], dtype=tl.int32, is_pure=False, pack=1
        )


def dependent(device: torch.device) -> bool:
    """Are launches on this device to be dependent ones? What kernels take as DEPENDENT and launches as launch_pdl."""
    if not on_gpu(device) or interpreted() or not options().dependent_launch:
        return False
    return capability_of(device) >= DEPENDENT_CAPABILITY and (device.type != "cuda" or _driver() >= DRIVER)


@functools.cache
def _driver() -> int:
    version = getattr(torch._C, "_cuda_getDriverVersion", None)  # builds for CPUs have none
    return 0 if version is None else int(version())
