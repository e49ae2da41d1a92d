"""Triton kernel of the short attention."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..shared.dependent import dependent, launch_dependents, prefetch_rows, wait
from ..shared.product import multiply_add, upcast
from ..shared.tiles import power_of_two
from .config import ShortAttentionConfig, programs


@triton.jit
def load_where(pointers, inside, WHOLE: tl.constexpr):
    """0 elsewhere."""
    return tl.load(pointers) if WHOLE else tl.load(pointers, mask=inside, other=0.0)


@triton.jit
def attend(
    q,
    k,
    v,
    seen,
    E: tl.constexpr,
    UPCAST: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_H: tl.constexpr,
):
    """softmax(q k e^-0.5) v of whole rows: q, v [BLOCK_S, BLOCK_E], k transposed, or BLOCK_H of each; like v"""
    if BLOCK_H == 1:
        scores = multiply_add(q, k, tl.zeros([BLOCK_S, BLOCK_S], tl.float32), UPCAST)
        zeros = tl.zeros([BLOCK_S, BLOCK_E], tl.float32)
    else:
        scores = multiply_add(q, k, tl.zeros([BLOCK_H, BLOCK_S, BLOCK_S], tl.float32), UPCAST)
        zeros = tl.zeros([BLOCK_H, BLOCK_S, BLOCK_E], tl.float32)
    AXIS: tl.constexpr = 1 if BLOCK_H == 1 else 2
    scores = tl.where(seen, scores * (1.4426950408889634 / E**0.5), float("-inf"))
    p = tl.exp2(scores - tl.max(scores, axis=AXIS, keep_dims=True))
    total = tl.sum(p, axis=AXIS, keep_dims=True)
    return (multiply_add(p.to(v.dtype), v, zeros, UPCAST) / total).to(v.dtype)


@triton.jit
def short_attention_kernel(
    qkv,
    weight,
    bias,
    residual,
    out,
    S: tl.constexpr,
    HEADS: tl.constexpr,
    E: tl.constexpr,
    CAUSAL: tl.constexpr,
    UPCAST: tl.constexpr,
    BLOCK_S: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_F: tl.constexpr,
    BLOCK_H: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """out = residual + softmax(q k^T e^-0.5) v Wo^T + bias, one program per sample and BLOCK_F of d = HEADS E features.

    qkv (N, S, 3 d), weight (d, d), bias (d,) or None, residual and out (N, S, d). All S tokens are one tile, so the
    softmax is over what is in registers, and a head's attended values are multiplied with its columns of Wo at once.
    BLOCK_H heads at a time, in different warps: one after another, each would wait for its own products' latency. Of
    many tokens one at a time, which all warps share: Triton 3.6 gives every warp a head and would spill.

    Every program computes the attention of all heads anew: with 16 tokens of 512 features 4 S S d = 0.5 MFLOP and 48
    KB out of the L2 cache, half a microsecond, where a launch of its own costs 1.6 or more and the round through
    memory.

    Rows past S are copies of the last one: never NaN, their keys are masked, their results not stored. Features past E
    and past d are zero.
    """
    D: tl.constexpr = HEADS * E
    tiles: tl.constexpr = (D + BLOCK_F - 1) // BLOCK_F
    launch_dependents(DEPENDENT)
    sample = (tl.program_id(0) // tiles).to(tl.int64)
    first = tl.program_id(0) % tiles * BLOCK_F
    prefetch_rows(weight, first, D, D, BLOCK_F, DEPENDENT)
    wait(DEPENDENT)
    s = tl.arange(0, BLOCK_S)
    e = tl.arange(0, BLOCK_E)
    feature = first + tl.arange(0, BLOCK_F)
    row = qkv + (sample * S + tl.minimum(s, S - 1)) * (3 * D)
    row_w = weight + tl.minimum(feature, D - 1).to(tl.int64) * D
    seen = (s < S)[None, :]
    if CAUSAL:
        seen = seen & (s[None, :] <= s[:, None])
    sums = tl.zeros([BLOCK_S, BLOCK_F], tl.float32)
    for start in range(0, HEADS, BLOCK_H):
        if BLOCK_H == 1:
            column = start * E + e
            inside = e < E
            q = load_where(row[:, None] + column[None, :], inside[None, :], E == BLOCK_E)
            k = load_where(row[None, :] + D + column[:, None], inside[:, None], E == BLOCK_E)
            v = load_where(row[:, None] + 2 * D + column[None, :], inside[None, :], E == BLOCK_E)
            w = load_where(row_w[None, :] + column[:, None], inside[:, None], E == BLOCK_E)
            attended = attend(q, k, v, seen, E, UPCAST, BLOCK_S, BLOCK_E, BLOCK_H)
            sums = multiply_add(attended, w, sums, UPCAST)
        else:
            head = start + tl.arange(0, BLOCK_H)
            column = head[:, None] * E + e[None, :]
            inside = (head < HEADS)[:, None] & (e < E)[None, :]
            whole: tl.constexpr = HEADS % BLOCK_H == 0 and E == BLOCK_E
            q = load_where(row[None, :, None] + column[:, None, :], inside[:, None, :], whole)
            k = load_where(row[None, None, :] + D + column[:, :, None], inside[:, :, None], whole)
            v = load_where(row[None, :, None] + 2 * D + column[:, None, :], inside[:, None, :], whole)
            w = load_where(row_w[None, None, :] + column[:, :, None], inside[:, :, None], whole)
            attended = attend(q, k, v, seen[None, :, :], E, UPCAST, BLOCK_S, BLOCK_E, BLOCK_H)
            projected = multiply_add(attended, w, tl.zeros([BLOCK_H, BLOCK_S, BLOCK_F], tl.float32), UPCAST)
            sums += tl.sum(projected, axis=0)
    if bias is not None:
        sums += tl.load(bias + feature, mask=feature < D, other=0.0).to(tl.float32)[None, :]
    place = (sample * S + s)[:, None] * D + feature[None, :]
    inside = (s < S)[:, None] & (feature < D)[None, :]
    sums += tl.load(residual + place, mask=inside, other=0.0)
    tl.store(out + place, sums.to(out.dtype.element_ty), mask=inside)


def short_attention_constants(
    length: int,
    heads: int,
    head_dim: int,
    causal: bool,
    dtype: torch.dtype,
    config: ShortAttentionConfig,
    dependent: bool = False,
) -> dict[str, int | bool]:
    """The constexprs of short_attention_kernel."""
    return {
        "S": length,
        "HEADS": heads,
        "E": head_dim,
        "CAUSAL": causal,
        "UPCAST": upcast(dtype),
        "BLOCK_S": power_of_two(length, 16),
        "BLOCK_E": power_of_two(head_dim, 16),
        "BLOCK_F": config.block_f,
        "BLOCK_H": config.heads,
        "DEPENDENT": dependent,
    }


def launch_short_attention(
    qkv: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    residual: Tensor,
    out: Tensor,
    heads: int,
    causal: bool,
    config: ShortAttentionConfig,
) -> None:
    """Checked by the caller, at least one sample."""
    samples, length, width = residual.shape
    early = dependent(qkv.device)
    short_attention_kernel[(programs(samples, width, config.block_f),)](
        qkv,
        weight,
        bias,
        residual,
        out,
        **short_attention_constants(length, heads, width // heads, causal, qkv.dtype, config, early),
        num_warps=config.warps,
        num_stages=config.stages,
        launch_pdl=early,
    )
