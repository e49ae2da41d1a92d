"""Parts of Triton kernels: row statistics, and the product of normalised rows with a weight matrix."""

from __future__ import annotations

import torch
import triton
import triton.language as tl

from .launch import interpreted

UNSTABLE = tl.constexpr(4096.0)  # mean^2 / var above which product_deferred's difference loses precision


@triton.jit
def merge_chunk(part, mean, deviations, start, K: tl.constexpr, BLOCK_K: tl.constexpr):
    """Mean and sum of squared deviations of rows of length K, updated with columns start .. start + BLOCK_K - 1.

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
def row_statistics(x, row_x, shift, K: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_K: tl.constexpr):
    """mean and var of the rows at x + row_x [BLOCK_M], of length K, plus shift [K] or None, in float32."""
    mean = tl.zeros([BLOCK_M], tl.float32)
    deviations = tl.zeros([BLOCK_M], tl.float32)
    for start in range(0, K, BLOCK_K):
        part = load_shifted(x, row_x, shift, start, K, BLOCK_K)
        mean, deviations = merge_chunk(part, mean, deviations, start, K, BLOCK_K)
    return mean, deviations / K


@triton.jit
def load_rows(x, row_x, start, K: tl.constexpr, BLOCK_K: tl.constexpr):
    """Columns start .. start + BLOCK_K - 1 of rows, 0 past K: [rows, BLOCK_K]"""
    column = start + tl.arange(0, BLOCK_K)
    pointers = x + row_x[:, None] + column[None, :]
    return tl.load(pointers) if K % BLOCK_K == 0 else tl.load(pointers, mask=(column < K)[None, :], other=0.0)


@triton.jit
def load_shifted(x, row_x, shift, start, K: tl.constexpr, BLOCK_K: tl.constexpr):
    """load_rows in float32, plus shift [K] or None; 0 past K"""
    part = load_rows(x, row_x, start, K, BLOCK_K).to(tl.float32)
    if shift is not None:
        column = start + tl.arange(0, BLOCK_K)
        part += tl.load(shift + column, mask=column < K, other=0.0)[None, :]
    return part


@triton.jit
def load_columns(w, row_w, start, K: tl.constexpr, BLOCK_K: tl.constexpr):
    """The same, transposed: [BLOCK_K, rows]"""
    column = start + tl.arange(0, BLOCK_K)
    pointers = w + row_w[None, :] + column[:, None]
    return tl.load(pointers) if K % BLOCK_K == 0 else tl.load(pointers, mask=(column < K)[:, None], other=0.0)


@triton.jit
def multiply_add(a, b, sums, UPCAST: tl.constexpr):
    """a b + sums in float32, without TF32. UPCAST: see `upcast`."""
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
        mean, variance = row_statistics(x, row_x, None, K, BLOCK_M, STATISTICS_K)
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

    Loads of W need not wait for the statistics. A row whose mean is so large beside its deviation that the
    difference would lose precision is computed as in `product` (each row by its own test: no row's result depends on
    another).
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


def upcast(dtype: torch.dtype) -> bool:
    """Must tl.dot's operands be converted to float32? The interpreter's product of bfloat16 is wrong."""
    return interpreted() and dtype == torch.bfloat16
