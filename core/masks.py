"""What a decoder's positions may see: position i of the content j, the start token and then the word's characters."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

MODES = ("start", "causal", "cloze")  # numbered so in the compiled kernels


class Rule(NamedTuple):
    """What the positions of one pass see of the content, in words; `mask` is the same as an array.

    mode: "start", j = 0 alone; "causal", j <= i; "cloze", j != i + 1, all but its own token. In every mode only
    j <= keep[row], keep (N,) int. queries: positions computed, T.
    """

    mode: str
    keep: np.ndarray
    queries: int

    def mask(self, contents: int) -> np.ndarray:
        """Over the first `contents` of the content, S: (N, T, S) bool."""
        seen = np.arange(contents) <= self.keep[:, None]
        return _pattern(self.mode, self.queries, contents) & seen[:, None, :]


@lru_cache(maxsize=256)
def _pattern(mode: str, queries: int, contents: int) -> np.ndarray:
    """(T, S) bool, before `keep`. Not to be written to."""
    i, j = np.ogrid[:queries, :contents]
    patterns = np.broadcast_to(j == 0, (queries, contents)), j <= i, j != i + 1
    return dict(zip(MODES, patterns))[mode]
