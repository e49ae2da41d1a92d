"""Merge and compaction of all frames of a word in one program, and the argmax before them where it is not done yet."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..shared.launch import on_device
from ..shared.tiles import power_of_two
from .config import FRAMES_AT_ONCE, LEAST_STEPS, CollapseConfig, configuration


@triton.jit
def collapse_kernel(
    logits,  # [N, F, C]
    out,  # [N, T] int32
    F: tl.constexpr,
    C: tl.constexpr,
    T: tl.constexpr,
    BLOCK_F: tl.constexpr,
    BLOCK_C: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    """Bound: F C logits read once, a few microseconds of latency."""
    word = tl.program_id(0).to(tl.int64)
    frame = tl.arange(0, BLOCK_F)
    best = tl.full((BLOCK_F,), float("-inf"), tl.float32)
    ids = tl.zeros((BLOCK_F,), tl.int32)
    for start in range(0, C, BLOCK_C):
        column = start + tl.arange(0, BLOCK_C)
        inside = (frame < F)[:, None] & (column < C)[None, :]
        tile = tl.load(logits + word * F * C + frame[:, None] * C + column[None, :], mask=inside, other=float("-inf"))
        highest, where = tl.max(tile.to(tl.float32), axis=1, return_indices=True)  # the first of equals
        ids = tl.where(highest > best, start + where, ids)
        best = tl.maximum(best, highest)
    _spell(tl.where((frame < F) & (ids < C), ids, 0), out + word * T, frame, T, BLOCK_T)


@triton.jit(do_not_specialize=["frames", "classes", "steps"])
def collapse_frames_kernel(
    ids,  # [N, F] int32
    out,  # [N, T] int32
    frames,  # F
    classes,  # C
    steps,  # T, at most BLOCK_T
    BLOCK_F: tl.constexpr,
    BLOCK_T: tl.constexpr,
):
    word = tl.program_id(0).to(tl.int64)
    frame = tl.arange(0, BLOCK_F)
    shown = tl.load(ids + word * frames + frame, mask=frame < frames, other=0)
    _spell(tl.where((shown > 0) & (shown < classes), shown, 0), out + word * steps, frame, steps, BLOCK_T)


@triton.jit
def _spell(ids, out, frame, steps, BLOCK_T: tl.constexpr):
    """Stores a word: ids of its frames, repeats merged, then without 0."""
    before = tl.where(frame > 0, tl.gather(ids, tl.maximum(frame - 1, 0), axis=0), 0)
    shows = (ids != 0) & (ids != before)
    place = tl.cumsum(shows.to(tl.int32), axis=0) - 1
    tl.store(out + place, ids, mask=shows & (place < steps - 1))
    position = tl.arange(0, BLOCK_T)
    ends = position >= tl.minimum(tl.sum(shows.to(tl.int32), axis=0), steps - 1)
    tl.store(out + position, tl.zeros((BLOCK_T,), tl.int32), mask=ends & (position < steps))


def constants(frames: int, classes: int, steps: int, config: CollapseConfig) -> dict[str, int]:
    """The kernel's tl.constexpr arguments."""
    blocks = {"BLOCK_F": power_of_two(frames), "BLOCK_C": config.classes_at_a_time(frames, classes)}
    return {"F": frames, "C": classes, "T": steps, **blocks, "BLOCK_T": power_of_two(steps)}


def collapse_triton(logits: Tensor, steps: int, config: CollapseConfig | None = None) -> Tensor:
    """As api.collapse, which checks; N at least 1."""
    n, frames, classes = logits.shape
    config = config or configuration(n)
    out = torch.empty((n, steps), dtype=torch.int32, device=logits.device)
    with on_device(logits.device):
        collapse_kernel[(n,)](logits, out, **constants(frames, classes, steps, config), num_warps=config.warps)
    return out


def collapse_frames_triton(ids: Tensor, steps: int, classes: int) -> Tensor:
    """As api.collapse_frames, which checks; N at least 1."""
    n, frames = ids.shape
    out = torch.empty((n, steps), dtype=torch.int32, device=ids.device)
    block, warps = FRAMES_AT_ONCE[frames > FRAMES_AT_ONCE[0][0]]
    with on_device(ids.device):
        collapse_frames_kernel[(n,)](
            ids, out, frames, classes, steps, BLOCK_F=block, BLOCK_T=power_of_two(steps, LEAST_STEPS), num_warps=warps
        )
    return out
