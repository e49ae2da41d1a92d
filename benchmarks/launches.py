"""The work of a kernel launch, from shapes alone: bytes, arithmetic, and how it is divided into blocks.

Bytes are those that must cross device memory: every input read once, every output written once. Arithmetic counts a
multiply-add as two. A launch of few blocks is bound by what one multiprocessor can load, not by the memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import ceil

QUERIES = 32  # the 26 steps of a word, padded for tensor cores
_TILES = ((128, 256), (128, 128), (64, 128), (64, 64), (32, 64), (32, 32), (32, 16))


@dataclass(frozen=True)
class Cut:
    """One way to divide a launch into blocks: their number, and the bytes and arithmetic of each."""

    blocks: int
    bytes: float
    flops: float


@dataclass(frozen=True)
class Launch:
    """One kernel, launched `count` times. bytes, flops: of one launch. cuts: possible ones, of which the fastest
    counts. kind: type of its matrix products, "fp16", "int8" or "fp8"."""

    name: str
    bytes: float
    flops: float
    cuts: tuple[Cut, ...]
    count: int = 1
    kind: str = "fp16"

    def times(self, count: int) -> Launch:
        return replace(self, count=self.count * count)


def linear(name: str, rows: int, k: int, f: int, residual: bool = False, size: int = 2) -> Launch:
    """(rows, k) @ (k, f), in any tile of tuned kernels. size: bytes of an element."""
    cuts = tuple(
        Cut(ceil(rows / m) * ceil(f / n), (min(m, rows) + n) * k * size, 2.0 * m * n * k)
        for m, n in _TILES
        if m <= max(32, rows)
    )
    moved = (rows * k + k * f + rows * f * (2 if residual else 1)) * size
    return Launch(name, moved, 2.0 * rows * k * f, cuts)


def stream(name: str, elements: float, passes: int = 2, size: int = 2) -> Launch:
    """An elementwise kernel: `passes` reads and writes of every element."""
    moved, blocks = elements * passes * size, max(1, ceil(elements / 4096))
    return Launch(name, moved, 0.0, (Cut(blocks, moved / blocks, 0.0),))


def attention(name: str, images: int, heads: int, tokens: int, e: int) -> Launch:
    """Self-attention in half precision, fused. e: features of a head."""
    tile = 64 if tokens >= 64 else 16
    cut = Cut(images * heads * ceil(tokens / tile), (tile + 2 * tokens) * e * 2, 4.0 * tile * tokens * e)
    return Launch(name, 8.0 * images * heads * tokens * e, 4.0 * images * heads * tokens * tokens * e, (cut,))


def total_launches(parts: Sequence[Launch]) -> int:
    return sum(part.count for part in parts)


def total_flops(parts: Sequence[Launch], kind: str | None = None) -> float:
    """Of the launches of a kind, by default of all."""
    return sum(part.count * part.flops for part in parts if kind in (None, part.kind))


def total_bytes(parts: Sequence[Launch]) -> float:
    return sum(part.count * part.bytes for part in parts)
