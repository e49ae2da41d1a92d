"""Which labels count, and when a prediction is right: by the standard scene text recognition protocol, or, for networks
that write other characters, in their own.

The standard protocol: whitespace goes, accents go (NFKD to ASCII), labels over 25 characters are left out, then case
and everything outside the charset goes, and labels with nothing left are left out. Right is what then matches exactly.

In a network's own charset nothing goes that it can write, but for case and what its test charset lacks.
"""

from __future__ import annotations

import string
import unicodedata
from dataclasses import dataclass
from typing import Any

from clip4str.core.edit_distance import edit_distance
from clip4str.core.text import Charset, comparing

LONGEST = 25  # characters of a label that counts


@dataclass(frozen=True)
class Protocol:
    """cased: capitals count. punctuation: ASCII punctuation counts. max_length: in characters, before filtering. own: a
    network's charset to compare in, in place of the standard one, see core.text.comparing."""

    cased: bool = False
    punctuation: bool = False
    max_length: int = LONGEST
    own: Charset | None = None

    @classmethod
    def of(cls, charset: Charset, steps: int, cased: bool = False, punctuation: bool = False) -> Protocol:
        """That of a network: the standard one where its characters are ASCII's, with digits and letters among them.
        steps: of its decoders; what it can write is never too long."""
        longest = max(LONGEST, steps - 1)
        return cls(cased, punctuation, longest, None if charset.is_standard else comparing(charset, cased, punctuation))

    @property
    def charset(self) -> str:
        """What counts of a label."""
        if self.own is not None:
            written = self.own.written
            return "".join(c for c in dict.fromkeys(self.own.test) if c in written)
        capitals = string.ascii_uppercase if self.cased else ""
        return string.digits + string.ascii_lowercase + capitals + (string.punctuation if self.punctuation else "")

    def to_dict(self) -> dict[str, Any]:
        """For reports. own: is it a network's own charset?"""
        values = {name: getattr(self, name) for name in ("cased", "punctuation", "max_length")}
        return {**values, "own": self.own is not None, "charset": self.charset}

    def label(self, text: str) -> str | None:
        """The label to match, None if the sample is left out."""
        return None if self.why_left_out(text) else self.prediction(text)

    def why_left_out(self, text: str) -> str:
        """Why a label does not count, "" if it does."""
        if len(self._spelled(text)) > self.max_length:
            return f"longer than {self.max_length} characters"
        return "" if self.prediction(text) else "with nothing that is compared"

    def altered(self, text: str) -> bool:
        """Has a label something that the network cannot write, or by the standard protocol something beyond ASCII?"""
        return not text.isascii() if self.own is None else self.own.alters(text)

    def prediction(self, text: str) -> str:
        text = self._spelled(text)
        if self.own is not None:
            return self.own.reduce(text)
        text = text if self.cased else text.lower()
        return "".join(c for c in text if c in self.charset)

    def _spelled(self, text: str) -> str:
        return _ascii(text) if self.own is None else self.own.spell(text)


def _ascii(text: str) -> str:
    text = unicodedata.normalize("NFKD", "".join(text.split()))
    return text.encode("ascii", "ignore").decode()


def closeness(prediction: str, label: str) -> float:
    """1 - normalised edit distance (ICDAR 2019), 0 to 1. Two empty words are equal."""
    return 1 - edit_distance(prediction, label) / max(len(prediction), len(label), 1)
