"""One word as it is followed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from .vote import TrackVote, Voted

SETTLED = 1.6  # weight of votes from which more reads change next to nothing: two of 90 %, or three of 75 %
RIVAL = 0.5  # confidence of a read that contradicts a settled word
REPLACED = 0.9  # weight of such reads that replaces it, as long as most of them agree,
PASSING = 0.7  # and if the first of them is so many seconds old: what passes before a word is gone by then


class State(Enum):
    TENTATIVE = "tentative"  # found by one search
    READING = "reading"
    SETTLED = "settled"  # what further reads say would change nothing
    REOPENED = "reopened"  # settled, but more of it is in view since, or another word may be in its place
    LOST = "lost"  # not seen; may come back
    ENDED = "ended"


@dataclass
class Shot:
    """The best frame of a track so far."""

    quality: float
    time: float
    quad: np.ndarray
    crop: np.ndarray


@dataclass(eq=False)
class Track:
    """start: when its first frame began; end: when the last frame that showed it ended. look: of the last search,
    read_look: when it was last read. frames: that show it. changed: since when its letters
    look otherwise than when they were read. reads: crops read. searches: that found it, misses: in a row
    that did not; doubt: frames in a row in which it looks otherwise; parts: searches in a row that found it in parts.
    read_at, read_time: number and time of the frame read last; read_quality: the best that was read. partial: all reads
    were of a word that the frame's edge cuts. grown: more of it is in view than was read. told: the word as last told,
    "" for none yet. twin: a lost track that this one may be again. final: lost for good; ended_told: and told. turns:
    see Word.turns."""

    number: int
    quad: np.ndarray
    vote: TrackVote
    start: float
    end: float
    look: np.ndarray
    label: str = ""
    state: State = State.TENTATIVE
    frames: int = 1
    reads: int = 0
    searches: int = 1
    misses: int = 0
    doubt: int = 0
    parts: int = 0
    read_at: int = -(10**9)
    read_time: float = -1e9
    read_quality: float = 0.0
    read_look: np.ndarray | None = None
    changed: float | None = None
    partial: bool = False
    grown: bool = False
    final: bool = False
    ended_told: bool = False
    turns: int = 0
    told: str = ""
    twin: Track | None = None
    best: Shot | None = field(default=None, repr=False)
    former: TrackVote | None = field(default=None, repr=False)
    rival: TrackVote | None = field(default=None, repr=False)
    rival_since: float = 0.0

    @property
    def gone(self) -> bool:
        return self.state in (State.LOST, State.ENDED)

    @property
    def visible(self) -> bool:
        return self.doubt == 0 and not self.gone

    @property
    def result(self) -> Voted:
        """What its reads say; those before it was voted on anew, until there are new ones."""
        result = self.vote.result
        return result if result.text or self.former is None else self.former.result

    def anew(self, vote: TrackVote) -> None:
        """What was read so far was of less than can be read now."""
        if self.vote.result.text:
            self.former = self.vote
        self.vote, self.read_quality, self.best = vote, 0.0, None

    def take(self, text: str, confidence: float, time: float, whole: bool, vote: Callable[[], TrackVote]) -> bool:
        """One read, in the frame at `time`. Is it another word by now, in the same place? Then `rival` has its votes.
        whole: the frame's edge does not cut it."""
        self.reads += 1
        if self.grown:
            self.grown = False
            if part_of(self.result.text, text):
                self.anew(vote())
        said = self.vote.result
        if said.weight < SETTLED or not text or text.casefold() == said.text.casefold() or self.partial:
            self.vote.add(text, confidence)
            if text:
                self.rival = None
            return False
        if confidence < RIVAL or not whole or part_of(text, said.text):  # something passes before it, or smears it
            return False
        if self.rival is None:
            self.rival, self.rival_since = vote(), time if self.changed is None else self.changed
        self.rival.add(text, confidence)
        agreed = self.rival.result.weight
        return agreed >= REPLACED and 2 * agreed > self.rival.total and time - self.rival_since >= PASSING

    def settle(self) -> None:
        """After a read: settled, if that is what it is now."""
        if self.gone:
            return
        if self.vote.result.weight >= SETTLED and not self.partial and not self.grown:
            self.state = State.SETTLED
        elif self.state is State.REOPENED:
            self.state = State.READING


def part_of(a: str, b: str) -> bool:
    """Is a what is to be seen of b where something hides the rest?"""
    return len(b) > len(a) >= max(2, len(b) / 3) and a.casefold() in b.casefold()
