"""Tile sizes of the linear kernel. Plain Python: importable without triton."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from ..options import options
from ..shared.tiles import DEPENDENT_CAPABILITY, block_of, most_multiprocessors, power_of_two, shared_limit


@dataclass(frozen=True)
class LinearConfig:
    """One program computes block_m x block_f outputs, block_k of K at a time, `stages` loads of it in flight.

    group: rows of tiles that are walked column by column, so that their part of x stays in the L2 cache. defer:
    normalise after the product (one pass: lower latency with few rows) instead of before. parts: programs that share a
    tile's K and add up in the same launch, see split.py; without normalisation only. descriptors: persistent programs
    and the tensor memory accelerator, see descriptors.py; no residual, rows are normalised before.
    """

    block_m: int
    block_f: int
    block_k: int
    warps: int
    stages: int
    group: int = 8
    defer: bool = False
    parts: int = 1
    descriptors: bool = False

    def shared_bytes(self, dtype: torch.dtype) -> int:
        """Shared memory for the loads in flight (the compiler may add a little for the epilogue), with descriptors also
        for the half tile that is being stored."""
        loads = (self.block_m + self.block_f) * self.block_k * self.stages
        return (loads + self.block_m * self.block_f // 2 * self.descriptors) * dtype.itemsize

    def tiles(self, rows: int, F: int) -> int:
        return -(-rows // self.block_m) * -(-F // self.block_f)


TILES = ((128, 128, 8), (128, 64, 4), (64, 64, 4), (64, 32, 4), (32, 32, 4), (32, 16, 4), (16, 16, 4))
WIDE = (128, 256, 8)
MANY_ROWS = 2048  # above, options() may ask for WIDE tiles, for three loads in flight, for descriptors
DEFERRED_ROWS = 64
PARTS = (2, 3, 4, 6, 8)
SPLIT_ROWS = 512  # past that there are tiles enough
SPLIT_TILES = 512  # at most, where K is split: each has a counter


def configuration(rows: int, K: int, F: int, dtype: torch.dtype, capability: tuple[int, int] = (9, 0)) -> LinearConfig:
    """The tiles for x (rows, K), weight (F, K); the same for all rows between two powers of two.

    Minimises a model of two figures per multiprocessor: it receives about 110 GB/s from the L2 cache and
    multiplies about 6 TFLOP/s (H100, half precision; 54 operations per byte), so a tile takes block_m + block_f or
    block_m block_f / 54, whichever is more, and tiles come in rounds of one per multiprocessor.
    """
    rows = power_of_two(rows, 16)
    multiprocessors = most_multiprocessors(capability)

    def time(tile: tuple[int, int, int]) -> float:
        block_m, block_f, _ = tile
        tiles = -(-rows // block_m) * -(-F // block_f)
        return -(-tiles // multiprocessors) * max(block_m + block_f, block_m * block_f / 54)

    tiles = [t for t in TILES if t[0] <= rows and (dtype != torch.float32 or t[0] * t[1] <= 4096)]
    tile, many = min(tiles, key=time), rows > MANY_ROWS and dtype != torch.float32
    if many and options().wide_tiles and -(-rows // WIDE[0]) * -(-F // WIDE[1]) >= multiprocessors:
        tile = WIDE
    found = _fitting(tile, rows, K, dtype, capability)
    return replace(found, stages=3) if many and options().three_stages and found.stages > 3 else found


def split_configuration(
    rows: int, K: int, F: int, dtype: torch.dtype, capability: tuple[int, int] = (9, 0)
) -> LinearConfig | None:
    """Tiles whose K several programs share, or None where that should take longer than `configuration`'s."""
    whole = configuration(rows, K, F, dtype, capability)
    if rows <= 16 or dtype == torch.float32:
        return None

    def time(config: LinearConfig) -> float:
        return predicted_us(config, rows, K, F, capability)

    found = [
        replace(fitted, parts=parts, defer=False)
        for tile in TILES
        if tile[0] <= power_of_two(rows, 16)
        for fitted in (_fitting(tile, rows, K, dtype, capability),)
        for parts in PARTS
        if K % (parts * fitted.block_k) == 0 and fitted.tiles(rows, F) <= SPLIT_TILES
    ]
    best = min(found, key=time, default=whole)
    return best if time(best) < time(whole) else None


def descriptor_configuration(
    rows: int, K: int, F: int, dtype: torch.dtype, capability: tuple[int, int] = (9, 0)
) -> LinearConfig | None:
    """Tiles of which two programs with descriptors fit a multiprocessor; None where rows are few, the GPU has no tensor
    memory accelerator, or rows of W or y do not all begin at multiples of 16 bytes."""
    if rows <= MANY_ROWS or capability < DEPENDENT_CAPABILITY or dtype == torch.float32 or K % 8 or F % 8:
        return None
    return LinearConfig(128, 128, 64 if shared_limit(capability) > 128 * 1024 else 32, 8, 3, descriptors=True)


def programs_at_once(config: LinearConfig, dtype: torch.dtype, capability: tuple[int, int]) -> int:
    """Programs with descriptors that a multiprocessor holds, 1 or 2. From 12.0 on products read registers, so
    shared memory holds one load fewer; about 1 KB of each program's is the driver's and the barriers'."""
    held = replace(config, stages=config.stages - (capability >= (12, 0))).shared_bytes(dtype) + 1280
    return 2 if config.block_m * config.block_f <= 128 * 128 and 2 * held <= shared_limit(capability) + 1024 else 1


def predicted_us(config: LinearConfig, rows: int, K: int, F: int, capability: tuple[int, int] = (9, 0)) -> float:
    """Microseconds of an H100: the model of `configuration`, and for parts of K 1.5 for a round through the L2 cache
    (write, count, read) and the last program's reading of the others' float32 sums at 110 GB/s."""
    multiprocessors = most_multiprocessors(capability)
    area, parts = config.block_m * config.block_f, config.parts
    rounds = -(-config.tiles(rows, F) * parts // multiprocessors)
    loop = 2 * K / parts * max(config.block_m + config.block_f, area / 54) / 110e3
    return rounds * loop + (1.5 + parts * 4 * area / 110e3 if parts > 1 else 0.0)


def candidates(
    rows: int, K: int, F: int, dtype: torch.dtype, capability: tuple[int, int] = (9, 0)
) -> list[LinearConfig]:
    """What a sweep should try, the chosen one first: neighbouring tiles, more or less of K in flight."""
    chosen = configuration(rows, K, F, dtype, capability)
    tiles = TILES[2:] if dtype == torch.float32 else (WIDE, *TILES)
    area = chosen.block_m * chosen.block_f
    near = [t for t in tiles if area <= 4 * t[0] * t[1] <= 16 * area and t[0] <= power_of_two(rows, 16)]
    found = [chosen] + [_fitting(t, rows, K, dtype, capability, k) for t in near for k in (64, 128, 256)]
    found += [replace(chosen, stages=s) for s in (2, 3, 5)] + [replace(chosen, defer=not chosen.defer)]
    if 16 < rows <= SPLIT_ROWS and K >= 4 * F and dtype != torch.float32:
        split = [replace(c, parts=p, defer=False) for c in found[:8] for p in (2, 4) if K % (p * c.block_k) == 0]
        found += [c for c in split if c.tiles(rows, F) <= SPLIT_TILES]
    if described := descriptor_configuration(rows, K, F, dtype, capability):
        found += [described, replace(described, stages=4), *(replace(described, block_f=256, stages=s) for s in (3, 4))]
    return [c for c in dict.fromkeys(found) if c.shared_bytes(dtype) <= shared_limit(capability)]


def _fitting(
    tile: tuple[int, int, int], rows: int, K: int, dtype: torch.dtype, capability: tuple[int, int], wanted: int = 0
) -> LinearConfig:
    """The tile with as many loads in flight as shared memory holds. wanted: of K at a time, 0 for the default."""
    block_m, block_f, warps = tile
    area = block_m * block_f
    block_k = wanted or (64 if area >= 4096 else 128 if area >= 2048 or K < 2048 else 256)  # more: registers spill
    block_k = block_of(K, min(block_k, 32) if dtype == torch.float32 else block_k)
    found = [LinearConfig(block_m, block_f, block_k, warps, s, defer=rows <= DEFERRED_ROWS) for s in (4, 3, 2)]
    return next((c for c in found if c.shared_bytes(dtype) <= shared_limit(capability) - 1024), found[-1])
