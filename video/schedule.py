"""What is worth its time: when words are searched, and which crops are read."""

from __future__ import annotations

from .track import State, Track

STILL, MOVING, FAST = 12, 10, 6  # frames from search to search, by how the scene moves
SLOW_MOTION, FAST_MOTION = 0.1, 1.5  # percent of the frame's longer side, per frame
RAREST = 30  # frames from search to search where time is short
AGAIN = 3  # frames until a word is read again that is not settled
TOGETHER = 2  # frames of which one reads again, where nobody waits: crops of larger batches take less time each
AT_FIRST, LEAST_READS = 4, 2  # crops of a frame, where somebody waits: until it is known how long one takes; ever
ASIDE = 4  # frames that a batch may last which no frame waits for: with fewer, words of busy scenes wait too long
USUAL = 40.0  # milliseconds of a frame whose source does not know its rate
CLEARER = 1.1  # quality over the best that was read, from which a crop is worth a read at once
MUCH_CLEARER, SURE = 1.3, 0.9  # the same once it is settled, as long as it is less sure than that
RECHECKED = 2.0  # seconds after which a settled word is looked at again: a display may show another one
CHANGED = 12  # frames until that, where its letters look otherwise; twice as many after each time it read the same
HURRIED, LATE = 0.7, 0.85  # of the budget, from which what has been read is read half, a quarter as often
MOST_READS = 24  # of a word that does not settle
LEAST_QUALITY = 0.02


class Schedule:
    """every: frames from search to search; None: by the scene's motion, and by the time there is. budget: milliseconds
    a frame may take, None where nobody waits. everything: read every crop, to compare with."""

    def __init__(self, every: int | None = None, budget: float | None = None, everything: bool = False) -> None:
        self.every, self.budget, self.everything = every, budget, everything
        self.search_time = self.other_time = self.crop_time = 0.0  # milliseconds, running means
        self._reading, self._looked = 0.0, 0  # looked: at frames that were not the very picture of the one before

    @property
    def longest(self) -> int:
        """Frames that may lie between two searches."""
        return max(RAREST, self.every or 0)

    @property
    def pace(self) -> int:
        """Times as long from read to read of a word: 1 where there is time. A word's first read never waits."""
        share = 0.0 if self.budget is None else self.other_time / self.budget
        return 4 if share >= LATE else 2 if share >= HURRIED else 1

    def most(self, spent: float | None) -> int | None:
        """Crops that may be read of a frame that has taken `spent` milliseconds, so that none takes much longer than
        there is; None for no frame that waits for them. None: all."""
        if self.everything or (self.budget is None and spent is not None):
            return None
        left = ASIDE * (self.budget or USUAL) if spent is None or self.budget is None else self.budget - spent
        return max(LEAST_READS, int(left / self.crop_time)) if self.crop_time else AT_FIRST

    def frames(self, motion: float) -> int:
        """Until the next search. motion: percent of the frame's longer side that the scene moves in a frame."""
        if self.every is not None:
            return self.every
        wanted = STILL if motion < SLOW_MOTION else MOVING if motion < FAST_MOTION else FAST
        if self.budget is not None and self.search_time:
            spare = max(self.budget - self.other_time, 0.1 * self.budget)
            wanted = max(wanted, min(RAREST, -int(-self.search_time // spare)))
        return wanted

    def took(self, search: float, other: float) -> None:
        """Milliseconds of one frame before its crops are read; search 0 where none was made."""
        if search:
            self.search_time = _mean(self.search_time, search)
        self.other_time = _mean(self.other_time, other + self._reading)
        self._reading, self._looked = 0.0, self._looked + 1

    def reading(self, milliseconds: float, crops: int, aside: bool = False) -> None:
        """That its crops have taken since, and how many there were: one or more. aside: no frame waited for it."""
        self._reading += 0.0 if aside else milliseconds
        self.crop_time = _mean(self.crop_time, milliseconds / crops, 0.3)  # the first takes longest

    def due(self, track: Track, number: int, time: float) -> bool:
        """May a read of the present frame change what is told, if the crop is good enough? number, time: the
        frame's."""
        if not track.visible:
            return False
        if self.everything or track.reads == 0 or track.state is State.REOPENED:
            return True
        if self.budget is None and self._looked % TOGETHER:
            return False
        if track.state is State.SETTLED:
            if track.rival is not None:
                return number - track.read_at >= AGAIN * self.pace
            if time - track.read_time >= RECHECKED:
                return True
            if track.changed is not None and not track.hidden:
                return number - track.read_at >= (CHANGED << track.alarms) * self.pace
            return track.result.confidence < SURE
        return track.reads < MOST_READS or time - track.read_time >= RECHECKED

    def worth(self, track: Track, quality: float, number: int, time: float) -> bool:
        """Is a crop of a track that is due good enough?"""
        if quality < LEAST_QUALITY:
            return False
        if self.everything or track.reads == 0 or track.state is State.REOPENED or track.rival is not None:
            return True
        if time - track.read_time >= RECHECKED:
            return True
        if track.state is State.SETTLED:
            return track.changed is not None or quality > MUCH_CLEARER * track.read_quality
        clearer = quality > CLEARER * track.read_quality and number - track.read_at >= self.pace
        return clearer or number - track.read_at >= AGAIN * _patience(track) * self.pace


def _mean(before: float, value: float, share: float = 0.1) -> float:
    return before + (value - before) * share if before else value


def _patience(track: Track) -> int:
    """What several reads could not tell is read less and less often: mostly it is no word; parts of words seldom."""
    if track.partial:
        return 3
    return 1 + (track.vote.reads // 2 if track.result.text else track.reads)
