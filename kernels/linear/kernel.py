"""Triton kernel of the linear layer, and the pieces of it that other operators' kernels are made of."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..launch import interpreted
from .config import LinearConfig, power_of_two

UNSTABLE = tl.constexpr(4096.0)  # mean^2 / var from which product_deferred's difference would lose digits


@triton.jit
def merge_chunk(part, mean, deviations, start, K: tl.constexpr, BLOCK_K: tl.constexpr):
    """Mean and sum of squared deviations of rows of length K, carried on by columns start .. start + BLOCK_K - 1.

    part [rows, BLOCK_K] float32, 0 past K. Merging as in Chan, Golub, LeVeque, "Updating formulae and a pairwise
    algorithm for computing sample variances", 1979: as exact as two passes, and a constant row whose sums float32
    holds has variance 0 exactly (hence the division rounded to nearest).
    """
    inside = start + tl.arange(0, BLOCK_K) < K
    count = BLOCK_K * 1.0 if K % BLOCK_K == 0 else tl.sum(inside.to(tl.float32), axis=0)
    part_mean = tl.div_rn(tl.sum(part, axis=1), tl.zeros_like(mean) + count)
    centred = part - part_mean[:, None]
    if K % BLOCK_K != 0:
        centred = tl.where(inside[None, :], centred, 0.0)
    shift = part_mean - mean
    share = count / (start + count)
    deviations += tl.sum(centred * centred, axis=1) + shift * shift * (start * share)
    return mean + shift * share, deviations


@triton.jit
def row_statistics(x, row_x, K: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr):
    """mean and var of the rows at x + row_x [BLOCK_M], of length K, in float32."""
    mean = tl.zeros([BLOCK_M], tl.float32)
    deviations = tl.zeros([BLOCK_M], tl.float32)
    for start in range(0, K, BLOCK_K):
        part = load_rows(x, row_x, start, K, BLOCK_K).to(tl.float32)
        mean, deviations = merge_chunk(part, mean, deviations, start, K, BLOCK_K)
    return mean, deviations / K


@triton.jit
def load_rows(x, row_x, start, K: tl.constexpr, BLOCK_K: tl.constexpr):
    """Columns start .. start + BLOCK_K - 1 of rows, 0 past K: [rows, BLOCK_K]"""
    column = start + tl.arange(0, BLOCK_K)
    pointers = x + row_x[:, None] + column[None, :]
    return tl.load(pointers) if K % BLOCK_K == 0 else tl.load(pointers, mask=(column < K)[None, :], other=0.0)


@triton.jit
def load_columns(w, row_w, start, K: tl.constexpr, BLOCK_K: tl.constexpr):
    """The same, transposed: [BLOCK_K, rows]"""
    column = start + tl.arange(0, BLOCK_K)
    pointers = w + row_w[None, :] + column[:, None]
    return tl.load(pointers) if K % BLOCK_K == 0 else tl.load(pointers, mask=(column < K)[:, None], other=0.0)


@triton.jit
def multiply_add(a, b, sums, UPCAST: tl.constexpr):
    if UPCAST:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    return tl.dot(a, b, sums, input_precision="ieee")


@triton.jit
def product(
    x,
    row_x,
    weight,
    row_w,
    K: tl.constexpr,
    NORMALIZE: tl.constexpr,
    UPCAST: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_F: tl.constexpr,
    BLOCK_K: tl.constexpr,
    STATISTICS_K: tl.constexpr,
):
    """n(x) W^T of one tile, [BLOCK_M, BLOCK_F] float32: rows at x + row_x and weight + row_w, of length K."""
    if NORMALIZE:
        mean, variance = row_statistics(x, row_x, K, BLOCK_M, STATISTICS_K)
        scale = tl.rsqrt(variance + 1e-5)
    sums = tl.zeros([BLOCK_M, BLOCK_F], tl.float32)
    for start in range(0, K, BLOCK_K):
        a = load_rows(x, row_x, start, K, BLOCK_K)
        w = load_columns(weight, row_w, start, K, BLOCK_K)
        if NORMALIZE:
            a = ((a.to(tl.float32) - mean[:, None]) * scale[:, None]).to(w.dtype)
        sums = multiply_add(a, w, sums, UPCAST)
    return sums


@triton.jit
def product_deferred(
    x,
    row_x,
    weight,
    row_w,
    K: tl.constexpr,
    UPCAST: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_F: tl.constexpr,
    BLOCK_K: tl.constexpr,
    STATISTICS_K: tl.constexpr,
):
    """n(x) W^T = (x W^T - mean sum_k W) / sqrt(var + 1e-5): one pass over x and W, statistics beside the product.

    Loads of W need not wait for the statistics. Where a row's mean is so large beside its deviation that the
    difference would lose digits, that row is computed as in `product` (each row by its own test: no row's answer
    depends on another).
    """
    mean = tl.zeros([BLOCK_M], tl.float32)
    deviations = tl.zeros([BLOCK_M], tl.float32)
    w_sums = tl.zeros([BLOCK_F], tl.float32)
    sums = tl.zeros([BLOCK_M, BLOCK_F], tl.float32)
    for start in range(0, K, BLOCK_K):
        a = load_rows(x, row_x, start, K, BLOCK_K)
        w = load_columns(weight, row_w, start, K, BLOCK_K)
        mean, deviations = merge_chunk(a.to(tl.float32), mean, deviations, start, K, BLOCK_K)
        w_sums += tl.sum(w.to(tl.float32), axis=0)
        sums = multiply_add(a, w, sums, UPCAST)
    variance = deviations / K + 1e-5
    sums = (sums - mean[:, None] * w_sums[None, :]) * tl.rsqrt(variance)[:, None]
    unstable = mean * mean > UNSTABLE * variance
    if tl.max(unstable.to(tl.int32), axis=0) > 0:
        safe = product(x, row_x, weight, row_w, K, True, UPCAST, BLOCK_M, BLOCK_F, BLOCK_K, STATISTICS_K)
        sums = tl.where(unstable[:, None], safe, sums)
    return sums


@triton.jit
def activate(y, ACTIVATION: tl.constexpr):
    """ "gelu": y Phi(y), exact. "quick_gelu": y sigmoid(1.702 y). y in float32."""
    if ACTIVATION == "gelu":
        y = 0.5 * y * (1.0 + tl.erf(y * 0.7071067811865476))
    if ACTIVATION == "quick_gelu":
        y = y / (1.0 + tl.exp(-1.702 * y))
    return y


@triton.jit(do_not_specialize=["rows"])  # one kernel for 1 row, 16 rows and all others
def linear_kernel(
    x,
    weight,
    bias,
    residual,
    out,
    rows,
    stride_x,
    stride_residual,
    stride_out,
    K: tl.constexpr,
    F: tl.constexpr,
    NORMALIZE: tl.constexpr,
    DEFER: tl.constexpr,
    ACTIVATION: tl.constexpr,
    UPCAST: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_F: tl.constexpr,
    BLOCK_K: tl.constexpr,
    STATISTICS_K: tl.constexpr,
    GROUP: tl.constexpr,
):
    """out = act(n(x) W^T + bias) + residual, one program per BLOCK_M x BLOCK_F tile; bias, residual may be None.

    x (rows, K), weight (F, K), bias (F,), residual and out (rows, F). n(x) is recomputed by every program of a row of
    tiles: the statistics need one more pass over BLOCK_M rows of x, which lie in the L2 cache, and save a launch and
    a round trip of x through memory. Sums stay in registers from the first product to the residual.

    Few rows (one word: 26): the time is that of streaming W once, 2 F K bytes, and of the launch; so BLOCK_F is as
    small as the tensor core's tile and many programs pull on the memory, each with `stages` chunks in flight.
    Many rows: 2 rows F K operations; tiles of 128 x 128 and more, walked in groups of GROUP rows of tiles so that
    neighbouring programs share x and W in the L2 cache.

    Rows and features past the end are clamped to the last one (no masks in the loop) and not stored.
    """
    tiles_m = tl.cdiv(rows, BLOCK_M)
    tiles_f: tl.constexpr = (F + BLOCK_F - 1) // BLOCK_F
    program = tl.program_id(0)
    first_m = program // (GROUP * tiles_f) * GROUP
    group = tl.minimum(tiles_m - first_m, GROUP)
    within = program % (GROUP * tiles_f)
    row = (first_m + within % group) * BLOCK_M + tl.arange(0, BLOCK_M)
    feature = within // group * BLOCK_F + tl.arange(0, BLOCK_F)
    row_x = tl.minimum(row, rows - 1).to(tl.int64) * stride_x
    row_w = tl.minimum(feature, F - 1).to(tl.int64) * K if F % BLOCK_F else feature.to(tl.int64) * K

    if NORMALIZE and DEFER:
        y = product_deferred(x, row_x, weight, row_w, K, UPCAST, BLOCK_M, BLOCK_F, BLOCK_K, STATISTICS_K)
    else:
        y = product(x, row_x, weight, row_w, K, NORMALIZE, UPCAST, BLOCK_M, BLOCK_F, BLOCK_K, STATISTICS_K)
    if bias is not None:
        y += tl.load(bias + feature, mask=feature < F, other=0.0).to(tl.float32)[None, :]
    y = activate(y, ACTIVATION)
    row64 = row.to(tl.int64)
    inside = (row < rows)[:, None] & (feature < F)[None, :]
    if residual is not None:
        y += tl.load(residual + row64[:, None] * stride_residual + feature[None, :], mask=inside, other=0.0)
    tl.store(out + row64[:, None] * stride_out + feature[None, :], y.to(out.dtype.element_ty), mask=inside)


def upcast(dtype: torch.dtype) -> bool:
    """Must tl.dot's operands be made float32 first? The interpreter's product of bfloat16 is wrong."""
    return interpreted() and dtype == torch.bfloat16


def linear_constants(
    K: int, F: int, normalize: bool, activation: str, dtype: torch.dtype, config: LinearConfig
) -> dict[str, int | bool | str]:
    """The constexprs of linear_kernel."""
    # The statistics pass may hold 64 elements of x per thread: as few, as long loads as the registers allow.
    statistics = min(power_of_two(K, 16), max(16, 64 * 32 * config.warps // config.block_m))
    return {
        "K": K,
        "F": F,
        "NORMALIZE": normalize,
        "DEFER": config.defer,
        "ACTIVATION": activation,
        "UPCAST": upcast(dtype),
        "BLOCK_M": config.block_m,
        "BLOCK_F": config.block_f,
        "BLOCK_K": config.block_k,
        "STATISTICS_K": statistics,
        "GROUP": config.group,
    }


def launch_linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor | None,
    out: Tensor,
    normalize: bool,
    activation: str,
    config: LinearConfig,
) -> None:
    """x (rows, K), weight (F, K), residual and out (rows, F): checked by the caller, at least one row."""
    rows, K = x.shape
    F = weight.shape[0]
    grid = (triton.cdiv(rows, config.block_m) * triton.cdiv(F, config.block_f),)
    linear_kernel[grid](
        x,
        weight,
        bias,
        residual,
        out,
        rows,
        x.stride(0),
        0 if residual is None else residual.stride(0),
        out.stride(0),
        **linear_constants(K, F, normalize, activation, x.dtype, config),
        num_warps=config.warps,
        num_stages=config.stages,
    )
