"""Triton kernel of the decoder's cross-attention: normalise, project the queries of a head, attend to two segments."""

from __future__ import annotations

import math

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..shared.dependent import dependent, launch_dependents, prefetch_rows, wait
from ..shared.product import multiply_add, product_deferred, upcast
from ..shared.tiles import power_of_two
from .config import AttentionConfig


@triton.jit
def attend_tile(
    q,
    keys,
    values,
    stride,
    start,
    sums,
    most,
    total,
    LENGTH: tl.constexpr,
    E: tl.constexpr,
    UPCAST: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """One step of the online softmax: positions start .. start + BLOCK - 1 of a segment of LENGTH positions.

    State per query: most, the largest score; total, the sum of exp(score - most); sums, the same sum over the values.
    """
    e = tl.arange(0, BLOCK_E)
    position = start + tl.arange(0, BLOCK)
    offsets = tl.minimum(position, LENGTH - 1) * stride if LENGTH % BLOCK else position * stride
    key_pointers = keys + offsets[None, :] + e[:, None]  # [BLOCK_E, BLOCK]
    value_pointers = values + offsets[:, None] + e[None, :]  # [BLOCK, BLOCK_E]
    if E == BLOCK_E:
        k = tl.load(key_pointers)
        v = tl.load(value_pointers)
    else:
        k = tl.load(key_pointers, mask=(e < E)[:, None], other=0.0)
        v = tl.load(value_pointers, mask=(e < E)[None, :], other=0.0)
    scores = multiply_add(q, k, tl.zeros([q.shape[0], BLOCK], tl.float32), UPCAST)
    if LENGTH % BLOCK:
        scores = tl.where((position < LENGTH)[None, :], scores, float("-inf"))
    larger = tl.maximum(most, tl.max(scores, axis=1))
    shrink = tl.exp2((most - larger) * 1.4426950408889634)
    p = tl.exp2((scores - larger[:, None]) * 1.4426950408889634)
    total = total * shrink + tl.sum(p, axis=1)
    sums = multiply_add(p.to(v.dtype), v, sums * shrink[:, None], UPCAST)
    return sums, larger, total


STRIDES = [f"{tensor}_{name}" for tensor in ("memory", "text") for name in ("sample", "part", "head", "row")]


@triton.jit(do_not_specialize=["T", "x_sample", "x_row", *STRIDES])
def attend_kernel(
    x,
    memory,
    text,
    weight,
    bias,
    out,
    T,
    x_sample,
    x_row,
    memory_sample,
    memory_part,
    memory_head,
    memory_row,
    text_sample,
    text_part,
    text_head,
    text_row,
    HEADS: tl.constexpr,
    E: tl.constexpr,
    M: tl.constexpr,
    X: tl.constexpr,
    ALIGN: tl.constexpr,
    UPCAST: tl.constexpr,
    BLOCK_T: tl.constexpr,
    BLOCK_E: tl.constexpr,
    BLOCK_K: tl.constexpr,
    STATISTICS_K: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_X: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """out[n, t, head] = softmax(q K^T) V, one program per (sample n, head), q = n(x) Wq^T + bq, or x if weight is None.

    K, V: X positions of text (N, 2, h, X, E), then M of memory (N, 2, h, M, E), under one online softmax (Milakov and
    Gimelshein, "Online normalizer calculation for softmax", arXiv 1805.02867): nothing is concatenated, scores never
    leave the registers. x (N, T, d), out (N, T, d) contiguous. Strides in units of ALIGN elements: this tells the
    compiler that rows are aligned to vectors, even where 24 features per head rule out multiples of 16.

    All T <= 32 queries of a head share one tile: keys and values are read once, 4 M d bytes per sample in half
    precision, for 4 M T d operations: T operations per byte, where an H100 balances at about 260. Memory bandwidth is
    the bound. Query rows past T are copies of the last one (never NaN, not stored), positions past the end copies of
    the last, their scores -inf; features past E are zero in K and V.

    With the projection inside, every sample's program rereads its head's slice of Wq, 2 d E bytes (64 KB at d 512)
    on top of 4 M E bytes (50 KB) of keys and values: with few programs this saves a launch, with many a `linear` before
    is cheaper (64 words: 20 MB through the L2 cache instead of 49). One word gives only h = 8 programs; even so, the
    memory is not split over programs: a program's 50 KB take about 0.5 us at a multiprocessor's share of the L2 cache
    (64 bytes a clock), splitting them in 4 saves at most 0.4 us and the launch that combines costs more than 1.3 us. At
    the largest size (M 577, E 128: 295 KB, 2.7 us) the two would be about equal.
    """
    D: tl.constexpr = HEADS * E
    sample = (tl.program_id(0) // HEADS).to(tl.int64)
    head = tl.program_id(0) % HEADS
    launch_dependents(DEPENDENT)
    if weight is not None:
        prefetch_rows(weight, head * E, D, D, E, DEPENDENT)
    wait(DEPENDENT)
    t = tl.arange(0, BLOCK_T)
    e = tl.arange(0, BLOCK_E)
    row_x = sample * x_sample * ALIGN + tl.minimum(t, T - 1) * (x_row * ALIGN)
    if weight is None:
        pointers = x + row_x[:, None] + head * E + e[None, :]
        q = tl.load(pointers) if E == BLOCK_E else tl.load(pointers, mask=(e < E)[None, :], other=0.0)
    else:
        row_w = (head * E + tl.minimum(e, E - 1)) * D
        q = product_deferred(x, row_x, weight, row_w, D, UPCAST, BLOCK_T, BLOCK_E, BLOCK_K, STATISTICS_K)
        if bias is not None:
            q += tl.load(bias + head * E + e, mask=e < E, other=0.0).to(tl.float32)[None, :]
        q = q.to(x.dtype.element_ty)

    sums = tl.zeros([BLOCK_T, BLOCK_E], tl.float32)
    most = tl.full([BLOCK_T], float("-inf"), tl.float32)
    total = tl.zeros([BLOCK_T], tl.float32)
    if text is not None:
        keys = text + sample * text_sample * ALIGN + head * (text_head * ALIGN)
        values = keys + text_part * ALIGN
        sums, most, total = attend_tile(
            q, keys, values, text_row * ALIGN, 0, sums, most, total, X, E, UPCAST, BLOCK_E, BLOCK_X
        )
    keys = memory + sample * memory_sample * ALIGN + head * (memory_head * ALIGN)
    values = keys + memory_part * ALIGN
    for start in range(0, M, BLOCK_M):
        sums, most, total = attend_tile(
            q, keys, values, memory_row * ALIGN, start, sums, most, total, M, E, UPCAST, BLOCK_E, BLOCK_M
        )
    y = (sums / total[:, None]).to(out.dtype.element_ty)
    pointers = out + (sample * T + t)[:, None] * D + head * E + e[None, :]
    tl.store(pointers, y, mask=(t < T)[:, None] & (e < E)[None, :])


def alignment(*tensors: Tensor | None) -> int:
    """The largest of 8, 4, 2, 1 that divides every stride but the last dimension's."""
    return math.gcd(8, *(s for tensor in tensors if tensor is not None for s in tensor.stride()[:-1]))


def attend_constants(
    T: int,
    heads: int,
    head_dim: int,
    M: int,
    X: int,
    align: int,
    dtype: torch.dtype,
    config: AttentionConfig,
    dependent: bool = False,
) -> dict[str, int | bool]:
    """The constexprs of attend_kernel."""
    d = heads * head_dim
    block_t = 16 if T <= 16 else 32
    return {
        "HEADS": heads,
        "E": head_dim,
        "M": M,
        "X": X,
        "ALIGN": align,
        "UPCAST": upcast(dtype),
        "BLOCK_T": block_t,
        "BLOCK_E": power_of_two(head_dim, 16),
        "BLOCK_K": min(config.block_k, power_of_two(d, 16)),
        "STATISTICS_K": min(power_of_two(d, 16), 64 * 32 * config.warps // block_t),
        "BLOCK_M": min(config.block_m, power_of_two(M, 16)),
        "BLOCK_X": power_of_two(X, 16) if X else 16,
        "DEPENDENT": dependent,
    }


def launch_attend(
    x: Tensor,
    memory: Tensor,
    text: Tensor | None,
    weight: Tensor | None,
    bias: Tensor | None,
    out: Tensor,
    config: AttentionConfig,
) -> None:
    """x (N, T, d): input of the query projection, or, with weight None, the queries themselves."""
    samples, T, _ = x.shape
    _, _, heads, M, head_dim = memory.shape
    X = 0 if text is None else text.shape[3]
    align, early = alignment(x, memory, text), dependent(x.device)

    def strides(tensor: Tensor | None, dims: int) -> list[int]:
        return [0] * dims if tensor is None else [s // align for s in tensor.stride()[:dims]]

    attend_kernel[(samples * heads,)](
        x,
        memory,
        text,
        weight,
        bias,
        out,
        T,
        *strides(x, 2),
        *strides(memory, 4),
        *strides(text, 4),
        **attend_constants(T, heads, head_dim, M, X, align, x.dtype, config, early),
        num_warps=config.warps,
        num_stages=config.stages,
        launch_pdl=early,
    )
