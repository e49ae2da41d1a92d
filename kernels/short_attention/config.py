"""Tiles of the short attention. Plain Python: importable without triton."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ..shared.tiles import SHARED_LIMIT, most_multiprocessors, power_of_two

FEATURES = (16, 32, 64)  # of a program
SCORES = 256  # a warp's at most where it has a head to itself: 16 tokens' by themselves
SHARED = 1024 * (min(SHARED_LIMIT.values()) - 3)  # bytes; the compiler may add a little


@dataclass(frozen=True)
class ShortAttentionConfig:
    """One program per sample and block_f of the output's features, which takes `heads` at a time, a power of two."""

    block_f: int
    heads: int
    warps: int
    stages: int = 1

    def shared_bytes(self, length: int, head_dim: int, dtype: torch.dtype) -> int:
        """Of queries, keys, values and weights."""
        tile = power_of_two(head_dim, 16) * (3 * power_of_two(length, 16) + self.block_f)
        return self.heads * tile * dtype.itemsize * self.stages


def configuration(
    samples: int, length: int, heads: int, head_dim: int, dtype: torch.dtype, capability: tuple[int, int] = (9, 0)
) -> ShortAttentionConfig:
    """The fewest features a program with which all programs run at once on the largest GPU of its kind: each computes
    the attention anew, so more programs are quicker only while multiprocessors are free. All heads at a time where a
    warp can have one or two to itself, for one waits while others multiply."""
    free = [f for f in FEATURES if programs(samples, heads * head_dim, f) <= most_multiprocessors(capability)]
    block_f = (free or FEATURES[-1:])[0] if dtype != torch.float32 else FEATURES[0]
    config = ShortAttentionConfig(block_f, power_of_two(heads) if power_of_two(length, 16) ** 2 <= SCORES else 1, 4)
    while config.heads > 1 and config.shared_bytes(length, head_dim, dtype) > SHARED:
        config = replace(config, heads=config.heads // 2)
    return replace(config, warps=8) if config.heads > 4 else config


def programs(samples: int, width: int, block_f: int) -> int:
    return samples * -(-width // block_f)


def candidates(
    samples: int, length: int, heads: int, head_dim: int, dtype: torch.dtype, capability: tuple[int, int] = (9, 0)
) -> list[ShortAttentionConfig]:
    """What a sweep should try, the chosen one first."""
    chosen = configuration(samples, length, heads, head_dim, dtype, capability)
    found = [chosen, *(replace(chosen, block_f=f, warps=w) for f in FEATURES for w in (4, 8))]
    found += [replace(chosen, heads=chosen.heads // 2)] if chosen.heads > 1 else []
    return [c for c in dict.fromkeys(found) if c.shared_bytes(length, head_dim, dtype) <= SHARED]
