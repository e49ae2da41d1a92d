"""The word of a draft head's frames: a first guess, from which fixed-point decoding starts."""

from __future__ import annotations

import numpy as np

from .text import END

MOST_FRAMES = 1024  # of a draft head, far more than any word needs


def collapse(frames: np.ndarray, steps: int, characters: int) -> np.ndarray:
    """Connectionist temporal classification's best path: repeats merged, then blanks dropped.

    frames (N, F) int: the id of the character that each frame shows; END, or anything that is no id of `characters`,
    for none. Returns ids (N, steps) int64, at most steps - 1 characters and then end tokens.
    """
    shows = (frames > END) & (frames <= characters)
    shows[:, 1:] &= frames[:, 1:] != frames[:, :-1]
    places = shows.cumsum(axis=1) - 1
    rows, columns = np.nonzero(shows & (places < steps - 1))
    words = np.full((len(frames), steps), END, np.int64)
    words[rows, places[rows, columns]] = frames[rows, columns]
    return words
