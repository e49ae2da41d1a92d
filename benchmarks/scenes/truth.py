"""What is true of a generated video."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np


@dataclass
class TrueWord:
    """A physical word: text, and for each frame that shows it (at least half of it, at least LEAST pixels high) its
    quad (4, 2) in the frame's pixels, from the top-left corner clockwise. whole: the frames that show all of it."""

    text: str
    quads: dict[int, np.ndarray] = field(default_factory=dict)
    whole: set[int] = field(default_factory=set)

    @property
    def first(self) -> int:
        return min(self.quads)

    @property
    def last(self) -> int:
        return max(self.quads)


LEAST = 12.0  # pixels of height from which a word counts
SHOWN = 0.5  # share of it that has to be seen


@dataclass
class Truth:
    """words: those that are ever shown. times: when each frame begins, and when the last one ends."""

    words: list[TrueWord]
    times: list[float]

    def span(self, word: TrueWord) -> tuple[float, float]:
        """When its first frame begins and its last one ends, seconds."""
        return self.times[word.first], self.times[word.last + 1]
