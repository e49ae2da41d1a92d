"""The standard scene text recognition protocol: which labels count, and when a prediction is right.

Whitespace goes, accents go (NFKD to ASCII), labels over 25 characters are left out, then case and everything
outside the charset goes, and labels with nothing left are left out. Right is what then matches exactly.
"""

from __future__ import annotations

import string
import unicodedata
from dataclasses import dataclass


@dataclass(frozen=True)
class Protocol:
    """cased: capitals count. punctuation: ASCII punctuation counts. max_length: in characters, before filtering."""

    cased: bool = False
    punctuation: bool = False
    max_length: int = 25

    @property
    def charset(self) -> str:
        capitals = string.ascii_uppercase if self.cased else ""
        return string.digits + string.ascii_lowercase + capitals + (string.punctuation if self.punctuation else "")

    def label(self, text: str) -> str | None:
        """The label to match, None if the sample is left out."""
        text = _ascii(text)
        return (self._reduce(text) or None) if len(text) <= self.max_length else None

    def prediction(self, text: str) -> str:
        return self._reduce(_ascii(text))

    def _reduce(self, text: str) -> str:
        text = text if self.cased else text.lower()
        return "".join(c for c in text if c in self.charset)


def _ascii(text: str) -> str:
    text = unicodedata.normalize("NFKD", "".join(text.split()))
    return text.encode("ascii", "ignore").decode()


def edit_distance(a: str, b: str) -> int:
    """Levenshtein: the fewest insertions, deletions and replacements that turn a into b."""
    row = list(range(len(b) + 1))
    for i, left in enumerate(a, 1):
        diagonal, row[0] = row[0], i
        for j, right in enumerate(b, 1):
            best = min(row[j] + 1, row[j - 1] + 1, diagonal + (left != right))
            diagonal, row[j] = row[j], best
    return row[-1]


def closeness(prediction: str, label: str) -> float:
    """1 - normalised edit distance (ICDAR 2019), 0 to 1. Two empty words are equal."""
    return 1 - edit_distance(prediction, label) / max(len(prediction), len(label), 1)
