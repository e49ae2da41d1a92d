"""Words and characters by chance: what every kind of drawn text is made of."""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Sequence

from .word_parts import FEW_WORDS

DIGITS = "0123456789"
LOWER = "abcdefghijklmnopqrstuvwxyz"
UPPER = LOWER.upper()
PUNCTUATION = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~"
CHARSET = DIGITS + LOWER + UPPER + PUNCTUATION
MAX_LENGTH = 25
LONG = 16  # characters


class Vocabulary:
    """words: frequent words, the most frequent first. rng: source of randomness. extra: further words, all alike (a
    dictionary). labels: texts of real crops."""

    def __init__(self, words: Sequence[str], rng: random.Random, extra: Sequence[str] = (), labels: Sequence[str] = ()):
        self.words = clean(words) or clean(re.findall(r"\w+", FEW_WORDS))
        self.extra = clean(extra)
        self.labels = clean(labels)
        self.rng = rng
        self.long = [w for w in (*self.words, *self.extra) if len(w) >= LONG]

    def plain(self) -> str:
        """A word as its list has it. Frequency counts, but flattened (density ~ rank ** -0.4)."""
        r = self.rng
        u = r.random()
        if self.labels and u < 0.12:
            return r.choice(self.labels)
        if self.extra and u < 0.27:
            return r.choice(self.extra)
        return self.words[int(len(self.words) * r.random() ** 1.67)]

    def cased(self, word: str) -> str:
        r = self.rng.random()
        if r < 0.50:
            return word.upper()
        if r < 0.72:
            return word[:1].upper() + word[1:].lower()
        if r < 0.95:
            return word.lower()
        if r < 0.98:
            return "".join(self.rng.choice((c.lower(), c.upper())) for c in word)
        cut = self.rng.randint(1, len(word))
        return word[:cut].capitalize() + word[cut:].capitalize()

    def letters(self, count: int) -> str:
        return "".join(self.rng.choice(UPPER) for _ in range(count))

    def digits(self, count: int) -> str:
        return "".join(self.rng.choice(DIGITS) for _ in range(count))

    def mixed(self, count: int) -> str:
        """Capitals and digits."""
        return "".join(self.rng.choice(UPPER + DIGITS) for _ in range(count))


def clean(words: Iterable[str]) -> list[str]:
    """Those of 1 to 25 characters, all among the 94."""
    allowed = set(CHARSET)
    stripped = (w.strip().replace(" ", "") for w in words)
    return [w for w in stripped if 0 < len(w) <= MAX_LENGTH and allowed.issuperset(w)]
