"""One word as it is followed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from clip4str.core.edit_distance import edit_distance

from .vote import TrackVote, Voted

SETTLED = 1.6  # weight of votes from which more reads change next to nothing: two of 90 %, or three of 75 %
RIVAL = 0.5  # confidence of a read that contradicts a settled word
REPLACED = 0.9  # weight of such reads that replaces it, as long as most of them agree,
PASSING = 0.7  # and if the first of them is so many seconds old: what passes before a word is gone by then,
MOST_ALARMS = 3
ESTABLISHED = 0.7  # seconds that a word looks as it was read, from which it was no part of one that moves into view
HIDING = 2.0  # or most of it: a word of which some letters are hidden may be read as another one that is like it


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
    crop: np.ndarray | None
    text: str


@dataclass(eq=False)
class Track:
    """start: when its first frame began; end: when the last frame that showed it ended. frames: that show it.

    look: of the last search; read_look: when it was last read; changed: since when its letters look otherwise; alarms:
    in a row, reads for that which said the same. reads: crops read. searches: that found it; misses: in a row that did
    not; parts: in a row that found it in parts; hidden: in a row that found less of it, the first of them at
    hidden_since. doubt: frames in a row in which it looks otherwise. drift: pixels a frame that it moves more than the
    scene. read_at, read_time: number and time of the frame read last; read_quality: the best that was read. partial:
    all reads were of a word that the frame's edge cuts. steady: seconds, at most, that it looked as it was read;
    shrunk: it is shorter than what was read, and not for a moment. grown: more of it is in view than was read; growth:
    times its area then. told: the word as last told, "" for none yet. twin: a lost track that this one may be again.
    final: lost for good; ended_told: and told. turns: see Word.turns. asked: a crop of it is being read.
    """

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
    hidden: int = 0
    hidden_since: float = 0.0
    read_at: int = -(10**9)
    read_time: float = -1e9
    read_quality: float = 0.0
    read_look: np.ndarray | None = None
    changed: float | None = None
    alarms: int = 0
    steady: float = 0.0
    shrunk: bool = False
    partial: bool = False
    grown: bool = False
    growth: float = 1.0
    final: bool = False
    ended_told: bool = False
    turns: int = 0
    asked: bool = False
    drift: np.ndarray = field(default_factory=lambda: np.zeros(2, np.float32))
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

    def shot(self, shot: Shot) -> bool:
        """One that was read; kept if it shows the word as it is told, and better than the best so far. Is it?"""
        word = self.result.text.casefold()

        def worth(of: Shot) -> tuple[bool, float]:
            return of.text.casefold() == word, of.quality

        if self.best is None or worth(shot) > worth(self.best):
            self.best = shot
        return self.best is shot

    def looks_on(self, began: float) -> None:
        """In the frame that began then; if it looks as it was read."""
        if self.read_look is not None and self.changed is None:
            self.steady = max(self.steady, began - self.read_time)

    def anew(self, vote: TrackVote) -> None:
        """What was read so far was of less than can be read now."""
        if self.vote.result.text:
            self.former = self.vote
        self.vote, self.read_quality, self.best = vote, 0.0, None

    def take(self, text: str, confidence: float, time: float, whole: bool, vote: Callable[[], TrackVote]) -> bool:
        """One read, in the frame at `time`. Is it another word by now, in the same place? Then `rival` has its votes.
        whole: the frame's edge does not cut it."""
        self.reads += 1
        if self.state is State.SETTLED and self.changed is not None:
            known = text.casefold() == self.result.text.casefold()
            self.alarms = min(self.alarms + 1, MOST_ALARMS) if known else 0
        if self.grown:
            self.grown = False
            if self.steady < ESTABLISHED and self.result.text.casefold() in text.casefold():
                self.anew(vote())
        said = self.vote.result
        same = text.casefold() == said.text.casefold()
        if not same and self.changed is None and may_be_hidden(text, said.text):  # the same letters, read otherwise
            same = True
        # It looked as it was read for long enough, and neither looks nor reads so now: no vote on the old word.
        another = self.changed is not None and self.steady >= ESTABLISHED and not may_be_hidden(text, said.text)
        if (said.weight < SETTLED and not (said.text and another)) or not text or same or self.partial:
            self.vote.add(text, confidence)
            if text:
                self.rival = None
            return False
        if (
            confidence < RIVAL or not whole or (part_of(text, said.text) and not self.shrunk)
        ):  # something passes before it, or smears it
            return False
        if self.rival is None:
            self.rival, self.rival_since = vote(), time if self.changed is None else self.changed
        self.rival.add(text, confidence)
        rival = self.rival.result
        if rival.weight < REPLACED or 2 * rival.weight <= self.rival.total:
            return False
        like = may_be_hidden(rival.text, said.text)
        clearer = like and rival.weight > said.weight and same_but_an_end(rival.text, said.text)
        cut = self.steady < ESTABLISHED  # else a display has changed
        if cut and (clearer or part_of(said.text, rival.text)):  # what hid some letters of it is gone
            self.vote, self.rival = self.rival, None
            return False
        return time - self.rival_since >= (HIDING if like else PASSING)

    @property
    def replaced(self) -> bool:
        """Did another word take its place lately, as far as its reads tell?"""
        rival = self.rival.result if self.rival is not None else None
        return rival is not None and rival.weight >= REPLACED - 0.1 and not may_be_hidden(rival.text, self.result.text)

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


def may_be_hidden(a: str, b: str) -> bool:
    """May a be what is read of b where something hides some letters? Not where figures alone are others: displays'
    are."""
    a, b = a.casefold(), b.casefold()
    if len(a) == len(b) and all(x == y or (x.isdigit() and y.isdigit()) for x, y in zip(a, b)):
        return False
    most = max(len(a), len(b)) // 2
    return edit_distance(a, b, most) <= most


def same_but_an_end(a: str, b: str) -> bool:
    """Are they of one length, and alike but for one end, a quarter of them at most? So a word is read that was cut."""
    a, b = a.casefold(), b.casefold()
    end = max(1, len(a) // 4)
    return len(a) == len(b) > 2 and (a[end:] == b[end:] or a[:-end] == b[:-end])
