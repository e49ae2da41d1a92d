"""How far two words are from each other."""

from __future__ import annotations


def edit_distance(a: str, b: str, most: int | None = None) -> int:
    """Levenshtein: the fewest insertions, deletions and replacements that turn a into b.

    most: beyond which it does not matter; then some number over it."""
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, right in enumerate(b, 1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (left != right))
        if most is not None and min(row) > most:
            return most + 1
    return row[-1]
