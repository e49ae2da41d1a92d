"""Times of frames, out of the times that decoders tell: from 0, never back, at any rate."""

from __future__ import annotations

import statistics
import time
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import TypeVar

from ..frames import Frame
from .base import Picture

REORDERED = 4  # usual steps that damaged data sets a time back by; more is a clock that starts anew
APART = 2.0  # seconds that a live source's clock may be away from ours
STALLED, STEPS = 2.0, 5  # seconds, and usual steps, without a frame, from which a live source has stood still
LEAST = 0.001  # seconds between two frames of a live source
DEFAULT_RATE = 25.0

T = TypeVar("T")


class Clock:
    """Pictures -> Frames whose times follow each other. rate: frames a second, for what tells no times."""

    def __init__(self, rate: float | None = None) -> None:
        self.rate, self.steps = rate, deque[float](maxlen=99)
        self.index, self.last, self.shift = -1, 0.0, 0.0  # shift: from the decoder's clock to ours
        self._size: tuple[int, int] | None = None

    @property
    def step(self) -> float:
        """Seconds that a frame is shown, usually."""
        return statistics.median(self.steps) if self.steps else 1 / (self.rate or DEFAULT_RATE)

    def frame(self, picture: Picture, broken: str = "") -> Frame:
        """The next frame. broken: what is known to have happened before it."""
        frame = Frame(picture.pixels, 0.0, self.index + 1, picture.layout, picture.duration, picture.damaged)
        if self._size is not None and frame.size != self._size:
            broken = broken or "size changed"
        self._size = frame.size
        if self.index < 0:
            when, self.shift = 0.0, -(picture.time or 0.0)
        else:
            when, broken = self._when(picture.time, broken)
            if not broken:
                self.steps.append(when - self.last)
        self.index, self.last = frame.index, when
        return replace(frame, time=when, broken=broken)

    def _when(self, told: float | None, broken: str) -> tuple[float, str]:
        if told is None:
            return self.last + self.step, broken
        when = told + self.shift
        if when > self.last:
            return when, broken
        if not broken and self.last - when <= REORDERED * self.step:
            return self.last + self.step / 8, broken
        when = self.last + self.step
        self.shift = when - told
        return when, broken or "time stepped back"


class LiveClock(Clock):
    """Of frames that come now: their own times, set right by their arrival where they leave it or start anew."""

    _began = _arrived = 0.0  # of the first frame, on this machine's clock; of the last one, in seconds from there on
    _told: float | None = None  # the last frame's own time

    def frame(self, picture: Picture, broken: str = "") -> Frame:
        if self.index < 0:
            self._began, self._told = time.monotonic(), picture.time
        return super().frame(picture, broken)

    def _when(self, told: float | None, broken: str) -> tuple[float, str]:
        arrival = time.monotonic() - self._began
        if not broken and arrival - self._arrived > max(STALLED, STEPS * self.step):
            self.steps.append(arrival - self._arrived)  # some give a frame every few seconds, and that is no stall
            broken = "stalled"
        if not broken and None not in (told, self._told) and told < self._told - REORDERED * self.step:  # type: ignore[operator]
            broken = "time stepped back"
        self._arrived, self._told = arrival, told
        soonest = self.last + (self.step if broken else LEAST)
        if told is None:
            return max(arrival, soonest), broken
        if broken or abs(told + self.shift - arrival) > APART:
            self.shift = max(arrival, soonest) - told
        return max(told + self.shift, soonest), broken


def recorded(pictures: Iterable[Picture], rate: float | None = None, frames: int | None = None) -> Iterator[Frame]:
    """Frames of what is read to its end: each is shown until the next one is.

    The last one: as long as its decoder says; else to the end of the file, which `frames` at `rate`, its average, tell
    to the tick; else for the usual step.
    """
    clock = Clock(rate)
    for frame, following in ahead(map(clock.frame, _without_outliers(pictures))):
        if following is not None:
            yield replace(frame, duration=following.time - frame.time)
            continue
        rest = frames / rate - frame.time if rate and frames == frame.index + 1 else 0.0
        usual = rest > min(clock.steps, default=0.0) / 2
        yield replace(frame, duration=frame.duration or (rest if usual else clock.step))


def ahead(items: Iterable[T]) -> Iterator[tuple[T, T | None]]:
    """Each item and the one that follows, None after the last one, or where what follows raises: that comes then."""
    iterator = iter(items)
    item = next(iterator, None)
    while item is not None:
        try:
            following = next(iterator, None)
        except Exception:
            yield item, None
            raise
        yield item, following
        item = following


def _without_outliers(pictures: Iterable[Picture]) -> Iterator[Picture]:
    """A single time that is ahead of the next one (damaged data) is put between those around it."""
    before: float | None = None
    for picture, following in ahead(pictures):
        after = following.time if following is not None else None
        if None not in (before, picture.time, after) and before < after < picture.time:  # type: ignore[operator]
            picture = picture._replace(time=(before + after) / 2)  # type: ignore[operator]
        yield picture
        before = picture.time
