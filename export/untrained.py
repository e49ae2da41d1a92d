"""A network that has learned nothing yet is called that: its words agree with each other as well as any."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clip4str.core.text import Charset, comparing, first_end

CHANCES = 10  # times chance: what a character's probability is below in a network that knows nothing
FEWEST = 8  # labels, of which none is read


def character_probabilities(ids: np.ndarray, probs: np.ndarray) -> list[float]:
    """Mean probability of each word's characters and its end. ids, probs (N, T), N at least 1."""
    steps = np.minimum(first_end(ids) + 1, ids.shape[1])
    return [float(row[:length].mean()) for row, length in zip(probs, steps)]


def untrained(charset: Charset, read: Sequence[tuple[str, float]], labels: Sequence[str | None]) -> str:
    """A line that says so if a network looks untrained, else "".

    read: words and the mean probability of their characters. labels: of the same crops, None where there is none. Known
    by characters near chance, or, where at least FEWEST labels can be compared, by none of them being read.
    """
    compared = comparing(charset).compared
    told = [(compared(word), wanted) for (word, _), label in zip(read, labels) if (wanted := compared(label or ""))]
    right = sum(word == wanted for word, wanted in told)
    probability, chance = float(np.mean([p for _, p in read])), 1 / (len(charset.characters) + 1)
    found = f"its characters have a probability of {probability:.2g} (chance is {chance:.2g})"
    if len(told) >= FEWEST:
        found += f", and {right or 'none'} of {len(told)} labelled crops {'are' if right != 1 else 'is'} read right"
    unread = len(told) >= FEWEST and not right
    return f"this network looks untrained: {found}" if unread or probability < min(0.5, CHANCES * chance) else ""
