"""How much of a word's logits a program holds at a time. Plain Python: importable without triton."""

from __future__ import annotations

from dataclasses import dataclass

from clip4str.core.drafts import MOST_FRAMES

from ..shared.tiles import power_of_two

FRAMES_AT_ONCE = ((64, 1), (MOST_FRAMES, 4))  # of frames that are ids: block and warps, up to 64 frames and above
LEAST_STEPS = 32  # a power of two that holds the steps of all networks that are compiled ahead of time


@dataclass(frozen=True)
class CollapseConfig:
    """elements: of a tile of logits, a power of two: all frames, and as many classes as fit."""

    elements: int = 4096
    warps: int = 4

    def classes_at_a_time(self, frames: int, classes: int) -> int:
        """Columns of a tile, a power of two."""
        return min(power_of_two(classes), max(2, self.elements // power_of_two(frames)))


def configuration(n: int) -> CollapseConfig:
    """For n words, one program each. 32 frames of 95 classes are one tile: 32 elements per thread."""
    return CollapseConfig()


def candidates(n: int) -> list[CollapseConfig]:
    """What a sweep should try, the chosen one first."""
    return [CollapseConfig(), CollapseConfig(warps=8), CollapseConfig(elements=1024, warps=2)]
