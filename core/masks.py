"""Decoder masks: which content j (the start token, then the word's characters) position i may see."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

MODES = ("start", "causal", "cloze")  # numbered so in the compiled kernels


class Rule(NamedTuple):
    """Which content the positions of one pass see; `mask` is the same as an array.

    mode: "start", j = 0 alone; "causal", j <= i; "cloze", j != i + 1, all but its own token. In every mode only
    j <= keep[row], keep (N,) int. queries: positions computed, T.
    """

    mode: str
    keep: np.ndarray
    queries: int

    def mask(self, contents: int) -> np.ndarray:
        """(N, T, S) bool, S = `contents`: the first positions of the content."""
        seen = np.arange(contents) <= self.keep[:, None]
        return _pattern(self.mode, self.queries, contents) & seen[:, None, :]


@lru_cache(maxsize=256)
def _pattern(mode: str, queries: int, contents: int) -> np.ndarray:
    """(T, S) bool, without `keep`. Read-only."""
    i, j = np.ogrid[:queries, :contents]
    patterns = np.broadcast_to(j == 0, (queries, contents)), j <= i, j != i + 1
    return dict(zip(MODES, patterns))[mode]
