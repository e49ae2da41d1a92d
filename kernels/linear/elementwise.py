"""Triton kernels that run beside cuBLAS: row normalisation, and bias, activation and residual in place."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ..shared.dependent import dependent, launch_dependents, wait
from ..shared.product import load_shifted, row_statistics
from ..shared.tiles import power_of_two
from .kernel import activate

ELEMENTS = 4096  # of one program: 32 per thread


@triton.jit(do_not_specialize=["rows"])
def normalize_kernel(
    x,
    shift,
    out,
    rows,
    stride_x,
    stride_out,
    K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_K: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """out = (x - mean) / sqrt(var + 1e-5) of x + shift [K], of x where that is None, one program per BLOCK_M rows,
    float32 inside. Bound: reads and writes rows K elements once (the second pass over a row finds it in the L1 or L2
    cache)."""
    launch_dependents(DEPENDENT)
    wait(DEPENDENT)
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    row_x = tl.minimum(row, rows - 1).to(tl.int64) * stride_x
    mean, variance = row_statistics(x, row_x, shift, K, BLOCK_M, BLOCK_K)
    scale = tl.rsqrt(variance + 1e-5)
    for start in range(0, K, BLOCK_K):
        column = start + tl.arange(0, BLOCK_K)
        inside = (row < rows)[:, None] & (column < K)[None, :]
        part = load_shifted(x, row_x, shift, start, K, BLOCK_K)
        part = (part - mean[:, None]) * scale[:, None]
        row_out = row.to(tl.int64)[:, None] * stride_out
        tl.store(out + row_out + column[None, :], part.to(out.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["rows"])
def activate_kernel(
    x,
    bias,
    residual,
    rows,
    stride_x,
    stride_residual,
    F: tl.constexpr,
    ACTIVATION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_F: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """x = act(x + bias) + residual in place, float32 inside. Bound: rows F elements read (twice with a residual) and
    written once."""
    launch_dependents(DEPENDENT)
    wait(DEPENDENT)
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    feature = tl.program_id(1) * BLOCK_F + tl.arange(0, BLOCK_F)
    inside = (row < rows)[:, None] & (feature < F)[None, :]
    row64 = row.to(tl.int64)
    pointers = x + row64[:, None] * stride_x + feature[None, :]
    y = tl.load(pointers, mask=inside, other=0.0).to(tl.float32)
    if bias is not None:
        y += tl.load(bias + feature, mask=feature < F, other=0.0).to(tl.float32)[None, :]
    y = activate(y, ACTIVATION)
    if residual is not None:
        y += tl.load(residual + row64[:, None] * stride_residual + feature[None, :], mask=inside, other=0.0)
    tl.store(pointers, y.to(x.dtype.element_ty), mask=inside)


def normalize_constants(K: int) -> dict[str, int]:
    block_k = min(power_of_two(K), ELEMENTS)
    return {"K": K, "BLOCK_M": ELEMENTS // block_k, "BLOCK_K": block_k}


def launch_normalize(x: Tensor, shift: Tensor | None, out: Tensor) -> None:
    """x, out (rows, K), shift (K,) float32"""
    rows, K = x.shape
    constants = normalize_constants(K)
    grid = (triton.cdiv(rows, constants["BLOCK_M"]),)
    early = dependent(x.device)
    strides = x.stride(0), out.stride(0)
    normalize_kernel[grid](x, shift, out, rows, *strides, **constants, DEPENDENT=early, num_warps=4, launch_pdl=early)


def activate_constants(F: int) -> dict[str, int]:
    block_f = min(power_of_two(F), 1024)
    return {"F": F, "BLOCK_M": ELEMENTS // block_f, "BLOCK_F": block_f}


def launch_activate(x: Tensor, activation: str, bias: Tensor | None, residual: Tensor | None) -> None:
    """x, residual (rows, F)"""
    rows, F = x.shape
    constants = activate_constants(F)
    grid = (triton.cdiv(rows, constants["BLOCK_M"]), triton.cdiv(F, constants["BLOCK_F"]))
    early = dependent(x.device)
    activate_kernel[grid](
        x,
        bias,
        residual,
        rows,
        x.stride(0),
        0 if residual is None else residual.stride(0),
        ACTIVATION=activation,
        **constants,
        DEPENDENT=early,
        num_warps=4,
        launch_pdl=early,
    )
