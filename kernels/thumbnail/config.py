"""Outputs that a program of the thumbnail kernel makes. Plain Python: importable without triton."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ThumbnailConfig:
    """block: pixels of one output row, a power of two."""

    block: int = 128
    warps: int = 4


def configuration() -> ThumbnailConfig:
    """For any frame. 640 x 360 outputs are 1,800 programs of 128: every multiprocessor has several."""
    return ThumbnailConfig()


def candidates() -> list[ThumbnailConfig]:
    """What a sweep should try, the chosen one first."""
    return [ThumbnailConfig(), ThumbnailConfig(64, 2), ThumbnailConfig(256, 4), ThumbnailConfig(128, 2)]
