"""The first and the last kernel of a decoder pass and their launchers; cross_attention and linear run between.

Why not one kernel for the whole pass: every output of a stage needs a whole row of the stage before, so one kernel
would keep a sample on one multiprocessor (at batch 1: 1 of 132) or need a barrier across the grid, which needs
every program resident; a launch inside a CUDA graph costs less than either.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..shared.dependent import dependent, launch_dependents, prefetch_rows, wait
from ..shared.product import multiply_add, product, upcast
from ..shared.tiles import power_of_two
from .config import HeadConfig, TableConfig, head_configuration, table_configuration
from .weights import DecoderWeights

PADDED = tl.constexpr(32)  # queries and content positions of a tile, and the last dimension of the score table


@triton.jit
def self_attention_kernel(
    ids,
    keep,
    scores,
    values,
    base,
    x,
    STEPS: tl.constexpr,
    TOKENS: tl.constexpr,
    HEADS: tl.constexpr,
    D: tl.constexpr,
    START: tl.constexpr,
    MODE: tl.constexpr,
    BLOCK_D: tl.constexpr,
    GROUP: tl.constexpr,
    UPCAST: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """x[n, i] = base[i] + sum_head sum_j softmax_j(scores[j, t_j, head, i] where i sees j) values[j, t_j, head]

    t = START, ids[n, 0], ids[n, 1], ...: the content. i sees j: MODE "start": j = 0; "causal": j <= i; "cloze":
    j != i + 1 and j <= keep[n]. Every query sees j = 0, so no softmax is empty.

    Shape: grid (N, d / BLOCK_D). The value rows are by far the most bytes (T x heads x d a sample) and splitting d
    splits them over programs; each program recomputes the scores, 4 KB a head, and their softmax. A step of the
    loop is GROUP heads: two gathers whose addresses are known before the loop, so the next heads' are in flight, then
    one (32 x 32 GROUP) @ (32 GROUP x BLOCK_D). Rows that no query sees are not read. Heads and content positions are
    summed in the same order whatever the tiles.
    """
    launch_dependents(DEPENDENT)
    wait(DEPENDENT)
    n = tl.program_id(0).to(tl.int64)
    columns = tl.program_id(1) * BLOCK_D + tl.arange(0, BLOCK_D)
    i = tl.arange(0, PADDED)
    part = tl.arange(0, GROUP * PADDED)  # for each head of the group, the content positions
    j = part % PADDED
    if MODE == "start":
        read = j < 1
        token = tl.zeros([GROUP * PADDED], tl.int32) + START
        seen = read[None, :] & (i[:, None] >= 0)
    else:
        read = j < STEPS
        if MODE == "cloze":
            read = read & (j <= tl.maximum(tl.load(keep + n), 0))
            seen = read[None, :] & (j[None, :] != i[:, None] + 1)
        else:
            seen = read[None, :] & (j[None, :] <= i[:, None])
        token = tl.load(ids + n * STEPS + j - 1, mask=(j > 0) & read, other=START)
        token = tl.minimum(tl.maximum(token, 0), TOKENS - 1)
    row = (j * TOKENS + token) * HEADS + part // PADDED  # in both tables, of the first group's heads

    total = tl.zeros([PADDED, BLOCK_D], tl.float32)
    for head in range(0, HEADS, GROUP):
        there = read & (head + part // PADDED < HEADS)
        s = tl.load(scores + (row + head)[None, :] * PADDED + i[:, None], mask=there[None, :], other=0.0)
        inside = there[:, None] & (columns < D)[None, :]
        v = tl.load(values + (row + head)[:, None] * D + columns[None, :], mask=inside, other=0.0)
        s = tl.reshape(tl.where(seen, s, float("-inf")), [PADDED, GROUP, PADDED])
        p = tl.exp(s - tl.max(s, 2)[:, :, None])
        p = p / tl.sum(p, 2)[:, :, None]
        total = multiply_add(tl.reshape(p, [PADDED, GROUP * PADDED]).to(v.dtype), v, total, UPCAST)
    written = (i < STEPS)[:, None] & (columns < D)[None, :]
    here = i[:, None] * D + columns[None, :]
    total += tl.load(base + here, mask=written, other=0.0)
    tl.store(x + n * STEPS * D + here, total.to(x.dtype.element_ty), mask=written)


@triton.jit
def head_kernel(
    x,
    weight,
    bias,
    before,
    limit,
    ids,
    probs,
    last,
    unsettled,
    logits,
    STEPS: tl.constexpr,
    D: tl.constexpr,
    CLASSES: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_K: tl.constexpr,
    STATISTICS_K: tl.constexpr,
    THROUGH_LAST: tl.constexpr,
    UPCAST: tl.constexpr,
    DEPENDENT: tl.constexpr,
):
    """logits[i] = n(x[n, i]) weight^T + bias; ids = argmax (the lowest of equals), probs = its softmax probability;
    last[n] = min(first i with ids[i] = 0, or STEPS; limit[n]); unsettled[n] = any i < last[n] with ids[i] != before[i],
    or i <= last[n] if THROUGH_LAST.

    before, limit, logits may be None: unsettled is 0, the limit STEPS - 1, no logits are written. The probability of
    the largest logit is 1 / sum exp(logit - largest).

    Shape: one program per sample, since `last` and `unsettled` need all its positions: 32 x 128 logits in registers, so
    nothing is written but the answer. At batch 1 one multiprocessor reads all of `weight` (97 KB at B/16, 195 KB at
    H/14) at 60 to 100 GB/s: 1 to 1.6 us, 2 to 3 us at H/14. Splitting the classes over several programs would save most
    of that, but combining their results takes a launch of 1.5 to 2 us: no gain at B/16, at most 1 us at H/14, batch 1.
    """
    launch_dependents(DEPENDENT)
    if tl.program_id(0) == 0:
        prefetch_rows(weight, tl.program_id(0), CLASSES, D, BLOCK_C, DEPENDENT)
    wait(DEPENDENT)
    n = tl.program_id(0).to(tl.int64)
    i = tl.arange(0, PADDED)
    c = tl.arange(0, BLOCK_C)
    start_x = x + n * STEPS * D
    row_x = tl.minimum(i, STEPS - 1) * D  # rows and classes past the end repeat the last one: no masks in the loop
    row_w = tl.minimum(c, CLASSES - 1) * D
    logit = product(
        start_x, row_x, weight, row_w, D, True, UPCAST, PADDED, BLOCK_C, BLOCK_K, STATISTICS_K
    )  # [queries, classes]
    logit += tl.load(bias + c, mask=c < CLASSES, other=0.0)[None, :]
    if logits is not None:
        here = (n * STEPS + i)[:, None] * CLASSES + c[None, :]
        tl.store(logits + here, logit, mask=(i < STEPS)[:, None] & (c < CLASSES)[None, :])

    logit = tl.where((c < CLASSES)[None, :], logit, float("-inf"))
    largest = tl.max(logit, 1)[:, None]
    answer = tl.min(tl.where(logit == largest, c[None, :], BLOCK_C), 1)
    answer = tl.where(answer < CLASSES, answer, 0)  # all were NaN: the end token, as torch's argmax gives
    probability = 1.0 / tl.sum(tl.exp(logit - largest), 1)
    written = i < STEPS
    tl.store(ids + n * STEPS + i, answer, mask=written)
    tl.store(probs + n * STEPS + i, probability, mask=written)

    end = tl.min(tl.where(written & (answer == 0), i, STEPS), 0)
    needed = tl.minimum(end, STEPS - 1)
    if limit is not None:
        needed = tl.minimum(end, tl.load(limit + n))
    tl.store(last + n, needed)
    changed = 0
    if before is not None:
        given = tl.load(before + n * STEPS + i, mask=written, other=0)
        changed = tl.max(((given != answer) & (i < needed + THROUGH_LAST)).to(tl.int32), 0)
    tl.store(unsettled + n, changed)


def self_attention(
    weights: DecoderWeights,
    ids: Tensor | None,
    mode: str,
    keep: Tensor | None,
    n: int,
    config: TableConfig | None = None,
) -> Tensor:
    """x1 (n, T, d). Arguments as reference.self_attention."""
    w = weights
    config = config or table_configuration(n, w.width, w.dtype)
    early = dependent(w.device)
    x = torch.empty(n, w.steps, w.width, dtype=w.dtype, device=w.device)
    self_attention_kernel[(n, triton.cdiv(w.width, config.block_d))](
        None if mode == "start" else ids,
        keep if mode == "cloze" else None,
        w.scores,
        w.values,
        w.base,
        x,
        **table_constexprs(w.steps, w.tokens, w.heads, w.width, w.start, mode, config, upcast(w.dtype), early),
        num_warps=config.warps,
        num_stages=config.stages,
        launch_pdl=early,
    )
    return x


def head(
    weights: DecoderWeights,
    x: Tensor,
    before: Tensor | None,
    limit: Tensor | None,
    out: tuple[Tensor, Tensor, Tensor, Tensor, Tensor | None],
    config: HeadConfig | None = None,
    through_last: bool = False,
) -> None:
    """Writes ids, probs, last, unsettled and, unless None, logits to `out`. Arguments as reference.head."""
    w = weights
    config = config or head_configuration(w.width, w.dtype)
    early = dependent(w.device)
    head_kernel[(x.shape[0],)](
        x,
        w.head_weight,
        w.head_bias,
        before,
        limit,
        *out,
        **head_constexprs(w.steps, w.width, w.classes, config, through_last, upcast(w.dtype), early),
        num_warps=config.warps,
        num_stages=config.stages,
        launch_pdl=early,
    )


def table_constexprs(
    steps: int,
    tokens: int,
    heads: int,
    d: int,
    start: int,
    mode: str,
    config: TableConfig,
    upcast: bool = False,
    dependent: bool = False,
) -> dict[str, int | str | bool]:
    return {
        "STEPS": steps, "TOKENS": tokens, "HEADS": heads, "D": d, "START": start, "MODE": mode,
        "BLOCK_D": config.block_d, "GROUP": config.group, "UPCAST": upcast, "DEPENDENT": dependent,
    }  # fmt: skip


def head_constexprs(
    steps: int,
    d: int,
    classes: int,
    config: HeadConfig,
    through_last: bool = False,
    upcast: bool = False,
    dependent: bool = False,
) -> dict[str, int]:
    statistics = min(power_of_two(d, 16), 64 * config.warps)  # 64 elements of x per thread
    return {
        "STEPS": steps, "D": d, "CLASSES": classes, "BLOCK_C": power_of_two(classes, 16), "BLOCK_K": config.block_k,
        "STATISTICS_K": statistics, "THROUGH_LAST": int(through_last), "UPCAST": upcast, "DEPENDENT": dependent,
    }  # fmt: skip
