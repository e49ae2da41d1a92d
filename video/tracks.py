"""The words of one source: which of this frame's words is which of the last one's."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np

from clip4str.core.edit_distance import edit_distance

from .detect import Detections
from .flow import Moved, Small, alike, carried, follow, look, same_letters
from .geometry import area, overlaps, pairs
from .track import ESTABLISHED, SETTLED, State, Track, part_of
from .vote import TrackVote

SAME = 0.3  # of two quads' common area over all of it, from which they are one word
WITHIN = 0.7  # of a quad's area inside another, from which it is a part of that
MISSED = 3  # searches in a row that do not find a word, until it is taken for lost
DOUBTED = 2  # frames in a row in which a word looks otherwise, until it is searched again
SURE = 0.9  # correlation of its looks from which a word is where its points went
DRIFT = 0.3  # share of a frame in a word's own speed, a running mean
GROWN = 1.2  # times its area, from which a word found again is more than what was read
STEADY = 1.05  # times its area, up to which it is the same as before
LESS = 1.1  # the same of a word that looks otherwise: its quad is not to shrink with what is left of it
HIDDEN = 8  # searches in a row that find less of a word than was read, until it is taken for shorter,
SHORTER = 4.0  # or seconds of them
PARTS = 2  # searches in a row that find a word in parts, until the parts are believed
EMERGING = 0.7  # seconds in which what comes out from behind something may yet be the word that went there,
EMERGED = 0.5  # if that much of it is where that one would be
KNOWN = 0.4  # weight of votes from which a new track's word tells whether it is a lost one


class Tracker:
    """revive: seconds within which a lost word that comes back goes on under its number."""

    def __init__(self, vote: Callable[[], TrackVote], revive: float = 1.5) -> None:
        self.vote, self.revive = vote, revive
        self.tracks: list[Track] = []
        self.count = 0
        self._numbers = itertools.count(1)

    @property
    def active(self) -> list[Track]:
        """Those that are neither lost nor ended."""
        return [t for t in self.tracks if not t.gone]

    @property
    def doubtful(self) -> bool:
        """Should be searched again soon: a word looks otherwise since the last search."""
        return any(t.doubt >= DOUBTED and t.misses == 0 for t in self.active)

    def advance(self, before: Small, after: Small, began: float, end: float, size: tuple[int, int]) -> Moved:
        """Carries all quads into the next frame, from `began` to `end`, and looks which words it still shows."""
        active = self.active
        moved = follow(before, after, np.array([t.quad for t in active], np.float32).reshape(-1, 4, 2))
        for track, quad, followed in zip(active, moved.quads, moved.followed):
            expected = carried(track.quad, moved.camera)
            seen = look(after, quad)
            if followed and not track.hidden and float(seen @ track.look) >= SURE:
                track.drift += (quad.mean(0) - expected.mean(0) - track.drift) * DRIFT
            else:  # what passes before a word takes its points along
                other = look(after, expected + track.drift)
                if not followed or track.hidden or other @ track.look > (track.changed is None) * (seen @ track.look):
                    quad, seen, followed = expected + track.drift, other, True
            track.quad = quad
            if track.read_look is not None:
                same = same_letters(seen, track.read_look)
                track.changed = None if same else began if track.changed is None else track.changed
                track.looks_on(began)
            if followed and alike(seen, track.look):
                self._seen(track, end)
            else:
                track.doubt += 1
            middle = quad.mean(0)
            if not ((middle > 0) & (middle < size[::-1])).all():
                track.state = State.LOST
        for track in self.tracks:
            if track.state is State.LOST and track not in active:
                track.quad = carried(track.quad, moved.camera) + track.drift
        return moved

    def cut(self) -> None:
        """The scene has changed altogether: nothing is where it was."""
        for track in self.active:
            track.state = State.LOST

    def search(
        self, found: Detections, frame: Small, end: float, recent: Sequence[tuple[Small, float]], began: float
    ) -> list[Track]:
        """Takes in what a search of the present frame has found; returns the new tracks.

        recent: the frames since the last search, the newest first, and when each began: a new word may have been there
        already. began: when the present frame began.
        """
        active = self.active
        quads = np.array([t.quad for t in active], np.float32).reshape(-1, 4, 2)
        matched, shared = pairs(quads, found.quads, SAME)
        claimed, confirmed = {j for _, j in matched}, {i for i, _ in matched}
        for i, j in matched:
            self._confirm(active[i], found.quads[j], frame, end)
        new: list[int] = []
        within: dict[int, list[int]] = {}
        for j in range(len(found.quads)):
            if j in claimed:
                continue
            mine = area(found.quads[j])
            whole = [i for i in range(len(active)) if shared[i, j] > WITHIN * max(area(quads[i]), 1e-6)]
            holders = [i for i in range(len(active)) if shared[i, j] > WITHIN * max(mine, 1e-6)]
            if whole:  # a line that was not cut this time
                confirmed.update(whole)
                for i in whole:
                    self._confirm(active[i], None, frame, end)
            elif holders:
                within.setdefault(holders[0], []).append(j)
            else:
                new.append(j)
        for i, parts in within.items():
            new += self._in_parts(active[i], parts, i in confirmed)
            confirmed.add(i)
        for i, track in enumerate(active):
            if i not in confirmed:
                track.misses, track.hidden = track.misses + 1, 0
                if track.misses >= MISSED or track.doubt > 0 or track.state is State.TENTATIVE:
                    track.state = State.LOST
        made = [self._begin(found, j, frame, end, began) for j in new]
        self._backdate(made, frame, recent)
        return made

    def _in_parts(self, track: Track, parts: list[int], seen: bool) -> list[int]:
        """A search that found parts of a track; those that are words of their own."""
        if len(parts) > 1:  # a line that was not cut before
            track.parts += 1
            if track.parts >= (HIDDEN if track.vote.result.weight >= SETTLED else PARTS):
                track.state, track.final = State.LOST, True
                return parts
        elif track.doubt and not seen:  # another, shorter word in its place, or something before it
            track.misses += 1
            if track.misses >= MISSED:
                track.state = State.LOST
                return parts
        else:
            track.misses = 0
        return []

    def read(self, track: Track, text: str, confidence: float, time: float, end: float, whole: bool = True) -> Track:
        """One read of a track, in the frame from `time` to `end`; returns the track that it counts for. That is a lost
        one that has come back, or a new one where another word is in the place of `track`, which is lost for good.
        whole: the frame's edge does not cut it."""
        if track.take(text, confidence, time, whole, self.vote):
            return self._replaced(track, end)
        twin = track.twin
        if twin is None or track.vote.result.weight < KNOWN:
            return track
        if twin.state is State.LOST and not twin.final and _same_word(track.vote, twin.vote):
            track.twin = None
            return self._revived(twin, track)
        return track

    def emerged(self, time: float) -> list[Track]:
        """Words that are none of the lost ones by now, and may be told."""
        over = [
            t for t in self.active if t.twin is not None and t.vote.result.weight >= KNOWN
            and (t.twin.state is not State.LOST or t.twin.final or time - t.start >= EMERGING)
        ]  # fmt: skip
        for track in over:
            track.twin = None
        return over

    def expire(self, time: float) -> list[Track]:
        """Lost tracks whose time is over, and of which nothing is being read; they are ended, and forgotten here."""
        waited = {id(t.twin) for t in self.active if t.twin is not None}
        return self._ended([
            t for t in self.tracks if t.state is State.LOST and not t.asked
            and (t.final or (time - t.end > self.revive and (id(t) not in waited or time - t.end > 2 * self.revive)))
        ])  # fmt: skip

    def finish(self) -> list[Track]:
        """All that are left, ended; those that may be a lost one and never told are taken for it."""
        for track in self.active:
            twin = track.twin
            if twin is not None and twin.state is State.LOST and not twin.final and _same_word(track.vote, twin.vote):
                self._revived(twin, track)
        return self._ended(list(self.tracks))

    def correct(self, believed: float, true: float) -> None:
        """The last frame ended otherwise than was believed."""
        for track in self.tracks:
            if track.end == believed:
                track.end = true

    def _ended(self, over: list[Track]) -> list[Track]:
        for track in over:
            track.state, track.twin = State.ENDED, None  # or each would hold the one before it
            if track.replaced:
                track.end = min(track.end, track.rival_since)
        self.tracks = [t for t in self.tracks if t.state is not State.ENDED]
        return over

    def _seen(self, track: Track, end: float) -> None:
        track.doubt = 0
        track.end = end
        track.frames += 1

    def _confirm(self, track: Track, quad: np.ndarray | None, frame: Small, end: float) -> None:
        if quad is not None and self._hidden(track, quad, end):
            track.hidden, track.hidden_since = track.hidden + 1, track.hidden_since if track.hidden else end
        elif quad is not None:
            more = area(quad) / max(area(track.quad), 1e-6)
            track.growth *= max(more, 1.0)
            if track.growth > STEADY and track.steady < ESTABLISHED:
                track.steady = 0.0
            track.shrunk = track.shrunk or (_long_hidden(track, end) and more < 1 / LESS)
            if track.growth > GROWN and track.reads:  # more of it has come into view than was read
                track.grown, track.state = True, State.REOPENED
                if track.twin is None and not track.told:
                    track.twin = self._lost_at(quad)
            near = not track.doubt and 1 / GROWN < more < STEADY
            track.quad = (track.quad + quad) / 2 if near else quad
            track.hidden = 0
        else:
            track.hidden = 0
        if track.doubt:
            self._seen(track, end)
        if track.state is State.TENTATIVE:
            track.state = State.READING
        track.look, track.misses, track.parts = look(frame, track.quad), 0, 0
        track.searches += 1

    def _hidden(self, track: Track, quad: np.ndarray, end: float) -> bool:
        """Is what a search found what is left of a word where something hides the rest? Not for long."""
        less = GROWN if track.changed is None else LESS
        if area(track.quad) < less * area(quad) or track.vote.result.weight < SETTLED or _long_hidden(track, end):
            return False
        return float(overlaps(quad[None], track.quad[None])[0, 0]) > WITHIN * area(quad)

    def _begin(self, found: Detections, j: int, frame: Small, end: float, began: float) -> Track:
        quad = found.quads[j].astype(np.float32)
        label = found.labels[j] if found.labels else ""
        track = Track(next(self._numbers), quad, self.vote(), began, end, look(frame, quad), label)
        track.twin = self._lost_at(quad)
        self.count += 1
        self.tracks.append(track)
        return track

    def _lost_at(self, quad: np.ndarray) -> Track | None:
        """The lost track that what is at a place may be again."""
        lost = [t for t in self.tracks if t.state is State.LOST and not t.final]
        taken = {id(t.twin) for t in self.tracks}
        matched, shared = pairs(np.array([t.quad for t in lost], np.float32).reshape(-1, 4, 2), quad[None], SAME)
        inside = np.flatnonzero(shared[:, 0] > EMERGED * max(area(quad), 1e-6)) if lost else np.zeros(0, int)
        places = [i for i, _ in matched] or inside.tolist()[:1]
        return next((lost[i] for i in places if id(lost[i]) not in taken), None)

    def _replaced(self, track: Track, end: float) -> Track:
        """The rival of a track, as one of its own; the other ended when the rival was first read."""
        assert track.rival is not None
        change = min(track.end, track.rival_since)
        new = Track(next(self._numbers), track.quad.copy(), track.rival, change, end, track.look, track.label)
        new.state, new.reads, new.searches = State.READING, track.rival.reads, 2
        new.read_at, new.read_time, new.read_look = track.read_at, track.read_time, track.read_look
        track.state, track.final, track.end, track.rival = State.LOST, True, change, None
        track.reads -= new.reads
        self.count += 1
        self.tracks.append(new)
        return new

    def _revived(self, old: Track, new: Track) -> Track:
        """A lost track goes on where the new one is."""
        if not self._hidden(old, new.quad, new.end):
            old.quad, old.look, old.turns, old.drift = new.quad, new.look, new.turns, new.drift
        old.end = new.end
        old.read_at, old.read_time, old.read_look = new.read_at, new.read_time, new.read_look
        old.frames += new.frames
        old.reads += new.reads
        old.misses = old.doubt = old.parts = old.hidden = 0
        old.vote.join(new.vote)
        old.state = State.READING
        if new.best is not None and (old.best is None or new.best.quality > old.best.quality):
            old.best = new.best
        self.tracks.remove(new)
        self.count -= 1
        new.state = State.ENDED
        return old

    def _backdate(self, made: Sequence[Track], frame: Small, recent: Sequence[tuple[Small, float]]) -> None:
        """New words are followed back through the frames that were not searched."""
        going = list(made)
        quads = np.array([t.quad for t in going], np.float32).reshape(-1, 4, 2)
        later = frame
        for earlier, began in recent:
            if not going:
                return
            moved = follow(later, earlier, quads, scene=False)
            there = [
                bool(followed) and alike(look(earlier, quad), track.look)
                for track, quad, followed in zip(going, moved.quads, moved.followed)
            ]
            for track, seen in zip(going, there):
                if seen:
                    track.start = began
                    track.frames += 1
            going = [track for track, seen in zip(going, there) if seen]
            quads = moved.quads[np.array(there, bool)]
            later = earlier


def _long_hidden(track: Track, end: float) -> bool:
    return track.hidden >= HIDDEN or (track.hidden > 1 and end - track.hidden_since >= SHORTER)


def _same_word(new: TrackVote, old: TrackVote) -> bool:
    """May a new track's word be that of one that was lost in its place? No word at all is like any. Two that are both
    sure are to be equal, or one a part of the other; else one edit in three characters may lie between."""
    a, b = new.result, old.result
    if not b.text or a.text.casefold() == b.text.casefold() or part_of(a.text, b.text) or part_of(b.text, a.text):
        return True
    if a.weight >= SETTLED / 2 and b.weight >= SETTLED / 2:
        return False
    most = max(len(a.text), len(b.text)) // 3
    return edit_distance(a.text.casefold(), b.text.casefold(), most) <= most
