"""One word out of many reads of it.

Reads vote for whole words, upper and lower case together, with the square of their confidence. Other rules beside it,
on the same reads, are in docs/video.md: votes on single characters, even where no two reads agree, and clusters of
similar reads get fewer words right.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field

from clip4str.core.edit_distance import edit_distance
from clip4str.core.errors import UsageError

MOST_WORDS = 256  # that one word is kept as having been read as
MOST_SPELLINGS = 64  # in capitals or not, of each of them
LEAST = 0.05  # confidence below which a read does not vote: mostly blur, edges of things, other scripts
UNSURE = 0.2  # confidence of a voted word, below which it is not told unless asked for
# Logistic regression over 1,403 simulated tracks (benchmarks/voting.py --data train/real --sets IC03 SVT --seed 10000
# --fit): what share of voted words is right. The network's last two runs have not learned from these sets. Of words
# that it knows it is surer: fitted to MLT17, confidence is 3.6 points above what is right of the test sets.
INTERCEPT, AGREED, BEST, AGAINST = -4.15, 1.64, 6.24, -2.84


@dataclass(frozen=True)
class Voted:
    """text: "" as long as nobody voted. confidence: calibrated, of the text being right. weight: sum of the
    squared confidences of those who voted for it. reads: given, voted or not."""

    text: str
    confidence: float
    weight: float
    reads: int


@dataclass
class _Candidate:
    weight: float = 0.0
    best: float = 0.0
    spellings: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))

    def spelled(self, text: str, weight: float) -> None:
        self.spellings[text] += weight
        if len(self.spellings) > MOST_SPELLINGS:
            kept = sorted(self.spellings.items(), key=lambda item: item[1], reverse=True)[: MOST_SPELLINGS // 2]
            self.spellings = defaultdict(float, kept)


class TrackVote:
    """The reads of one word. `add` them as they come; `result` tells what they say together.

    pattern: a regular expression that the whole word fits; others do not vote. lexicon: the words there can be; a read
    votes for the nearest of them, if it is near. least: confidence below which a read does not vote.

    Raises UsageError for a pattern that is none, or an empty lexicon.
    """

    def __init__(
        self, pattern: str | re.Pattern[str] | None = None, lexicon: Lexicon | None = None, least: float = LEAST
    ) -> None:
        self.pattern, self.lexicon, self.least = compiled(pattern), lexicon, least
        self.reads = 0
        self._words: dict[str, _Candidate] = {}
        self._forgotten = 0.0  # weight of those that were too many

    def add(self, text: str, confidence: float) -> None:
        """One read: a Word's text and confidence."""
        self.reads += 1
        if not text or not confidence >= self.least:
            return
        if self.lexicon is not None:
            nearest = self.lexicon.nearest(text)
            if nearest is None:
                return
            text = nearest
        if self.pattern is not None and not self.pattern.fullmatch(text):
            return
        candidate = self._words.setdefault(text.casefold(), _Candidate())
        candidate.weight += confidence**2
        candidate.best = max(candidate.best, confidence)
        candidate.spelled(text, confidence**2)
        self._bounded()

    def join(self, other: TrackVote) -> None:
        """Takes over the votes of another, of the same word."""
        self.reads += other.reads
        for key, theirs in other._words.items():
            mine = self._words.setdefault(key, _Candidate())
            mine.weight += theirs.weight
            mine.best = max(mine.best, theirs.best)
            for spelling, weight in theirs.spellings.items():
                mine.spelled(spelling, weight)
        self._forgotten += other._forgotten
        self._bounded()

    def _bounded(self) -> None:
        """What is read otherwise each time, for hours, is no word: of the lightest half the weight is kept alone."""
        if len(self._words) > MOST_WORDS:
            kept = sorted(self._words.items(), key=lambda item: item[1].weight, reverse=True)[: MOST_WORDS // 2]
            self._forgotten += sum(c.weight for c in self._words.values()) - sum(c.weight for _, c in kept)
            self._words = dict(kept)

    @property
    def result(self) -> Voted:
        if not self._words:
            return Voted("", 0.0, 0.0, self.reads)
        winner = max(self._words.values(), key=lambda c: c.weight)
        text = max(winner.spellings, key=lambda spelling: winner.spellings[spelling])
        return Voted(text, _confidence(self.evidence), winner.weight, self.reads)

    @property
    def total(self) -> float:
        """Weight of all votes."""
        return self._forgotten + sum(candidate.weight for candidate in self._words.values())

    @property
    def evidence(self) -> tuple[float, float, float]:
        """What the voted word's confidence is made of: how much weight is for it, the surest read of it, and how much
        is for others."""
        winner = max(self._words.values(), key=lambda c: c.weight)
        against = self.total - winner.weight
        return math.log1p(winner.weight), winner.best, math.log1p(max(against, 0.0))


def _confidence(evidence: tuple[float, float, float]) -> float:
    score = INTERCEPT + sum(weight * value for weight, value in zip((AGREED, BEST, AGAINST), evidence))
    return 1 / (1 + math.exp(-score))


def compiled(pattern: str | re.Pattern[str] | None) -> re.Pattern[str] | None:
    """Raises UsageError for what is no regular expression."""
    try:
        return re.compile(pattern) if isinstance(pattern, str) else pattern
    except re.error as error:
        raise UsageError(f"pattern {pattern!r} is no regular expression: {error}") from None


class Lexicon:
    """Words that can be, and which of them a read is near. Raises UsageError if there are none."""

    def __init__(self, words: Iterable[str]) -> None:
        self.words = sorted({word.strip() for word in words} - {""})
        if not self.words:
            raise UsageError("the lexicon has no words; a line a word is expected")
        self._exact = {word.casefold(): word for word in reversed(self.words)}
        self._by_length: dict[int, list[tuple[int, str]]] = defaultdict(list)
        for folded in self._exact:
            self._by_length[len(folded)].append((_letters(folded), folded))
        self._known: dict[str, str | None] = {}

    def nearest(self, text: str) -> str | None:
        """The nearest word, case aside, of those at most one edit in four characters away; None if there is none, or
        several are as near."""
        folded = text.casefold()
        if folded in self._exact:
            return self._exact[folded]
        if folded not in self._known:
            if len(self._known) > 4096:
                self._known.clear()
            self._known[folded] = self._search(folded)
        return self._known[folded]

    def _search(self, text: str) -> str | None:
        most, mine = len(text) // 4, _letters(text)
        found: list[tuple[int, str]] = []
        for length in range(len(text) - most, len(text) + most + 1):
            for letters, folded in self._by_length.get(length, ()):
                if (letters ^ mine).bit_count() > 2 * most:  # each edit brings and takes a letter at most
                    continue
                distance = edit_distance(text, folded, most)
                if distance <= most:
                    found.append((distance, self._exact[folded]))
        found.sort()
        tied = len(found) > 1 and found[1][0] == found[0][0]
        return found[0][1] if found and not tied else None


def _letters(word: str) -> int:
    """Which letters a word has, a bit each (of 64; some share one)."""
    mask = 0
    for character in word:
        mask |= 1 << (ord(character) & 63)
    return mask
