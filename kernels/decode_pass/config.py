"""Tile sizes of a decoder pass's kernels. Plain Python: importable without triton."""

from __future__ import annotations

from dataclasses import dataclass

import torch

ENOUGH_PROGRAMS = 128  # about the multiprocessors of a server GPU: past that, wider tiles repeat less of the softmax


@dataclass(frozen=True)
class TableConfig:
    """Self-attention over the tables: one program per sample and block_d columns, `group` heads (a power of two) at a
    time, `stages` such loads in flight."""

    block_d: int
    group: int
    warps: int
    stages: int


@dataclass(frozen=True)
class HeadConfig:
    """One program per sample: block_k of d at a time, `stages` such loads in flight."""

    block_k: int
    warps: int
    stages: int


def table_configuration(samples: int, d: int, dtype: torch.dtype) -> TableConfig:
    """The number of samples decides how work is divided, but no sum changes its order.

    Few samples: all heads at once, since a program's time is then one chain of latencies: ids, gathers, one softmax,
    one product. Many: one head at a time with the next heads' loads in flight; other programs hide the latencies.
    """
    if dtype == torch.float32:
        return TableConfig(32, 1, 4, 3)
    for block_d in (128, 64):
        if samples * -(-d // block_d) >= ENOUGH_PROGRAMS:
            return TableConfig(block_d, 1, 4, 4)
    return TableConfig(32, 8, 4, 1)


def head_configuration(d: int, dtype: torch.dtype) -> HeadConfig:
    """The same for every number of samples."""
    return HeadConfig(32, 8, 3) if dtype == torch.float32 else HeadConfig(64, 4, 4)


def table_candidates(samples: int, d: int, dtype: torch.dtype) -> list[TableConfig]:
    """What a sweep should try."""
    if dtype == torch.float32:
        return [TableConfig(block_d, 1, 4, stages) for block_d in (16, 32) for stages in (2, 3)]
    blocks = [block_d for block_d in (16, 32, 64, 128) if block_d <= max(d, 16)]
    depths = ((1, 2), (1, 4), (1, 8), (2, 2), (2, 4), (4, 2), (8, 1))  # group, stages
    wide = ((8, 8),) if samples < ENOUGH_PROGRAMS else ()
    return [TableConfig(b, g, w, s) for b in blocks for g, s in depths for w in (2, 4) if b * g <= 64 * w] + [
        TableConfig(b, g, w, 1) for b in blocks for g, w in wide
    ]


def head_candidates(d: int, dtype: torch.dtype) -> list[HeadConfig]:
    """What a sweep should try."""
    if dtype == torch.float32:
        return [HeadConfig(k, w, s) for k in (16, 32) for w in (4, 8) for s in (2, 3)]
    return [HeadConfig(k, w, s) for k, s in ((32, 4), (32, 6), (64, 3), (64, 4), (128, 2)) for w in (4, 8)]
