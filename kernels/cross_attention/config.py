"""Tile sizes of the attention kernel. Plain Python: importable without triton."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ..shared.tiles import block_of, power_of_two, shared_limit

INSIDE_PROGRAMS = 64  # up to this many programs, each projects its own queries; a guess, to be measured


@dataclass(frozen=True)
class AttentionConfig:
    """One program per sample and head; block_m memory positions at a time, `stages` such loads in flight.

    project_inside: the kernel projects its queries itself, block_k of d at a time; False: a `linear` launch before it
    does.
    """

    block_m: int
    block_k: int
    warps: int
    stages: int
    project_inside: bool


def shared_bytes(config: AttentionConfig, head_dim: int, dtype: torch.dtype) -> int:
    """Shared memory for the keys and values in flight (before them, for the weights)."""
    width = power_of_two(head_dim, 16)
    attend = 2 * config.block_m * width * config.stages
    project = (32 + width) * config.block_k * config.stages if config.project_inside else 0
    return max(attend, project) * dtype.itemsize


def configuration(
    samples: int, heads: int, head_dim: int, memory: int, dtype: torch.dtype, capability: tuple[int, int] = (9, 0)
) -> AttentionConfig:
    """Tiles for `samples` x `heads` programs over `memory` positions.

    Few programs: each has a multiprocessor to itself, and should have as much of the memory in flight as fits. Many:
    tiles small enough for several programs per multiprocessor. At most 74 KB of shared memory: every capability has
    that.
    """
    inside = samples * heads <= INSIDE_PROGRAMS
    d, width = heads * head_dim, power_of_two(head_dim, 16)
    if dtype == torch.float32:
        return AttentionConfig(32, block_of(d, 32), 4, 2, inside)
    if not inside:
        return AttentionConfig(64, block_of(d, 64), 4, 3, False)
    if width == 64:
        return AttentionConfig(128, block_of(d, 128), 8, 3, True)
    return AttentionConfig(64, block_of(d, 64), 8 if width == 128 else 4, 3, True)  # 128: more would spill registers


def candidates(
    samples: int, heads: int, head_dim: int, memory: int, dtype: torch.dtype, capability: tuple[int, int] = (9, 0)
) -> list[AttentionConfig]:
    """What a sweep should try, the chosen one first."""
    chosen = configuration(samples, heads, head_dim, memory, dtype, capability)
    if dtype == torch.float32:
        return [chosen, replace(chosen, project_inside=not chosen.project_inside)]
    found = [chosen]
    for block_m, warps in ((32, 4), (64, 4), (64, 8), (128, 8)):
        for inside in (chosen.project_inside, not chosen.project_inside):
            found += [replace(chosen, block_m=block_m, warps=warps, stages=s, project_inside=inside) for s in (2, 3)]
    limit = shared_limit(capability)
    return [c for c in dict.fromkeys(found) if shared_bytes(c, head_dim, dtype) <= limit]
