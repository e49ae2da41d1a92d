"""What a decoder's positions may see: position i of the content j, the start token and then the word's characters."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from .errors import UsageError


class Sight(NamedTuple):
    """A mask in words. mode:

    "start": j = 0 alone; "causal": j <= i; "cloze": j != i + 1, all but its own token. In every mode only
    j <= keep[row], keep (N,) int.
    """

    mode: str
    keep: np.ndarray


def masks(steps: int) -> dict[str, np.ndarray]:
    """mode -> (T, T) bool, before `keep`"""
    queries, contents = np.ogrid[:steps, :steps]
    start = np.broadcast_to(contents == 0, (steps, steps))
    return {"start": start, "causal": contents <= queries, "cloze": contents != queries + 1}


def sight_of(attend: np.ndarray) -> Sight:
    """Which of them a mask (N, T, S) is, cut to its size or whole; keep is that of every row, S - 1 where all is seen.

    Raises UsageError for a mask that the driver never makes.
    """
    queries, contents = np.ogrid[: attend.shape[1], : attend.shape[2]]
    last = np.full(len(attend), attend.shape[2] - 1, np.int32)
    if (attend == (contents == 0)).all():
        return Sight("start", last)
    # A query past the given content would see, as "causal", what fills it up: a cloze over two contents looks the same.
    if contents.size >= queries.size and (attend == (contents <= queries)).all():
        return Sight("causal", last)
    keep = np.where(attend.any(axis=1), contents, 0).max(axis=1).astype(np.int32)
    if (attend == ((contents != queries + 1) & (contents <= keep[:, None, None]))).all():
        return Sight("cloze", keep)
    raise UsageError("attend: expected the driver's masks (start token alone, causal, or all but a query's own token)")
