"""What is known of each object that a tracker follows: its reads, its word, what was told of it."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np

from ..clock import Clock
from ..events import Event, Gap
from ..frames import Frame
from ..photo import Read, turned
from ..telling import Telling
from ..track import Shot, State, Track
from ..vote import UNSURE, TrackVote, Voted
from .adapter import Box, FrameInBatch, Object

MOST = 1024  # objects of a source; those seen longest ago are ended for newer ones
IDLE = 60.0  # seconds without a frame until a source's objects are gone

Vote = Callable[[], TrackVote]


@dataclass(eq=False)
class Followed:
    """seen: number of its source's frame that showed it last. pending: a crop of it is being read. tried: of all
    buffers, the number of the one in which a crop was last looked at."""

    track: Track
    seen: int
    pending: bool = False
    tried: int = -1


@dataclass
class Source:
    """frames: seen so far. came: when, on the monotonic clock, the last one did."""

    number: int
    telling: Telling
    clock: Clock = field(default_factory=Clock)
    frames: int = 0
    last: int = -1
    first: float | None = None
    came: float = 0.0
    objects: dict[int, Followed] = field(default_factory=dict)


class Request(NamedTuple):
    """A crop to read, uint8 (h, w, 3) RGB, from where `quad` was. partial: the frame's edge cuts it. time, number: of
    its frame."""

    source: Source
    followed: Followed
    crop: np.ndarray
    quad: np.ndarray
    quality: float
    partial: bool
    time: float
    number: int


class Objects:
    """Of all sources, by source and the tracker's number. forget: frames that do not show an object until it is gone.
    Every call is made with `lock` held, by the pipeline's threads and the reading one."""

    def __init__(self, vote: Vote, forget: int) -> None:
        self.vote, self.forget, self.lock = vote, forget, threading.Lock()
        self.told: deque[Event] = deque()
        self._sources: dict[int, Source] = {}

    def begin(self, frame: FrameInBatch) -> Source:
        """The frame's source, with its clock at the frame."""
        now = time.monotonic()
        source = self._sources.setdefault(frame.source, Source(frame.source, Telling(frame.source, UNSURE)))
        when = now if frame.time is None else frame.time
        source.first = when if source.first is None else source.first
        broken = source.clock.take(Frame(None, when - source.first, max(frame.number, 0)))
        if source.clock.corrected:
            believed, true = source.clock.corrected
            for followed in source.objects.values():
                if followed.track.end == believed:
                    followed.track.end = true
        if broken or frame.number < source.last:
            reason = broken or "reconnected"
            source.telling.add(Gap(source.number, source.clock.before, source.clock.began, reason))
            self._end(source, list(source.objects))
        source.frames, source.last, source.came = source.frames + 1, frame.number, now
        for other in [each for each in self._sources.values() if now - each.came > IDLE]:
            self.finish(other.number)
        return source

    def seen(self, source: Source, target: Object) -> Followed:
        """An object of the present frame. It has a number."""
        assert target.number is not None
        quad, clock = corners(target.box), source.clock
        followed = source.objects.get(target.number)
        if followed is None:
            if len(source.objects) >= MOST:
                self._end(source, [min(source.objects, key=lambda number: source.objects[number].seen)])
            track = Track(target.number, quad, self.vote(), clock.began, clock.end, np.zeros(0), target.label)
            track.state = State.READING
            followed = source.objects[target.number] = Followed(track, source.frames)
            return followed
        followed.seen, followed.track.quad, followed.track.end = source.frames, quad, clock.end
        followed.track.frames += 1
        followed.track.searches += 1
        return followed

    def expire(self, source: Source) -> None:
        """Ends what the tracker has not shown for too long."""
        self._end(source, [n for n, each in source.objects.items() if source.frames - each.seen > self.forget])

    def learn(self, request: Request, read: Read) -> None:
        """The answer to a request."""
        followed, track = request.followed, request.followed.track
        followed.pending = False
        if track.state is State.ENDED:
            return
        track.read_time, track.read_at = request.time, request.number
        if track.partial and not request.partial:  # what was read of a part says nothing of the whole
            track.anew(self.vote())
        track.partial = request.partial and (track.partial or track.reads == 0)
        if track.take(read.word.text, read.word.confidence, request.time, not request.partial, self.vote):
            assert track.rival is not None
            track.vote, track.rival, track.best = track.rival, None, None  # another word on the same object
        track.read_quality = max(track.read_quality, request.quality)
        if track.rival is None:
            track.turns, quad = read.turns, turned(request.quad, read.turns)
            track.shot(Shot(request.quality, request.time, quad, read.crop, read.word.text))
        track.settle()
        request.source.telling.read(track, request.time)
        self.told.extend(request.source.telling.take())

    def word(self, followed: Followed) -> Voted | None:
        """To be shown; None before it is told."""
        return followed.track.result if followed.track.told else None

    def finish(self, source: int | None = None) -> None:
        """Ends all objects of a source, or of all."""
        for number in list(self._sources) if source is None else [source]:
            if (gone := self._sources.pop(number, None)) is not None:
                self._end(gone, list(gone.objects))

    def _end(self, source: Source, numbers: list[int]) -> None:
        for number in numbers:
            track = source.objects.pop(number).track
            track.state = State.ENDED
            source.telling.end(track, source.clock.began)
        self.told.extend(source.telling.take())


def corners(box: Box) -> np.ndarray:
    """(4, 2) float32 of left, top, width, height."""
    left, top, width, height = box
    return np.array([[left, top], [left + width, top], [left + width, top + height], [left, top + height]], np.float32)
