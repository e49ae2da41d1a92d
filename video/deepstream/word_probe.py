"""The probe that reads objects and writes their words back."""

from __future__ import annotations

import re
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterable
from contextlib import ExitStack
from typing import Any, NamedTuple

import numpy as np

from clip4str.core.errors import UsageError
from clip4str.runtime import Recognizer

from ..events import Event
from ..frames import Frame, grey
from ..quality import quality
from ..schedule import Schedule
from ..stream import EDGE
from ..vote import Lexicon, TrackVote, Voted, compiled
from .adapter import Batch, FrameInBatch, Object
from .objects import Followed, Objects, Request, Source
from .probe import Probe, Say
from .readings import Readings

COMPONENT = 4000  # unique_component_id of our labels


class _Wanted(NamedTuple):
    frame: FrameInBatch
    source: Source
    followed: Followed


class WordProbe(Probe):
    """Reads the objects that come through a pad, behind nvtracker, of RGBA surfaces; see docs/deepstream.md.

    >>> probe = WordProbe(Recognizer.load(), on_event=print)
    >>> tracker.get_static_pad("src").add_probe(Gst.PadProbeType.BUFFER, probe)

    An object's crops are read as often as that can change something, and vote; once there is a word, each later frame's
    object gets it as its display text and as a classifier's label. Reading is done by a thread of its own: a buffer is
    kept for `budget` milliseconds at most and a crop's time, however slow the network is.

    classes: of objects that are read, None for all. component: unique_component_id of the labels. pattern, lexicon: see
    vote.TrackVote. most: crops cut out of a frame. forget: frames that do not show an object until its word is ended;
    more than the tracker's maxShadowTrackingAge. on_event: gets every WordFound, WordChanged, WordEnded and Gap, by the
    reading thread; `source` is the source_id, `track` the tracker's number. say, pyds: see Probe. `close` it once the
    pipeline has stopped.

    Raises BackendError, UsageError.
    """

    def __init__(
        self, recognizer: Recognizer, *, classes: Collection[int] | None = None, component: int = COMPONENT,
        pattern: str | re.Pattern[str] | None = None, lexicon: Iterable[str] | None = None, most: int = 16,
        budget: float = 5.0, forget: int = 90, on_event: Callable[[Event], object] | None = None,
        say: Say | None = None, pyds: Any = None,
    ) -> None:  # fmt: skip
        if most < 1 or not budget > 0 or forget < 1:
            raise UsageError(f"most and forget are 1 and more, budget over 0 ms, not {most}, {forget}, {budget}")
        super().__init__(say, pyds)
        self.classes, self.component, self.most, self.budget = classes, component, most, budget
        rule, words = compiled(pattern), None if lexicon is None else Lexicon(lexicon)
        self._objects, self._schedule = Objects(lambda: TrackVote(rule, words), forget), Schedule()
        self._turn = 0
        self._readings = Readings(recognizer, self._objects, on_event, self.trouble)

    def process(self, buffer: Any) -> None:
        until = time.perf_counter() + self.budget / 1000
        batch = self._adapter.batch(buffer)
        if batch is None:
            self.trouble("buffers have no batch metadata: the probe belongs behind nvstreammux")
            return
        if self._readings.closing:
            return
        wanted: list[_Wanted] = []
        for frame in batch.frames():
            told = self._look(frame, list(batch.objects(frame)), wanted)
            if told:
                with batch.locked():
                    for target, word in told:
                        batch.classify(target, word.text, word.confidence, self.component)
        wanted.sort(key=lambda each: each.followed.tried)  # new ones, then in turn, of all sources
        self._cut(batch, wanted, until)
        if self._objects.told:
            self._readings.wake()

    def finish(self, source: int | None = None) -> None:
        """A source has ended (its pad is released), or all: their words are ended, and told by the reading thread."""
        with self._objects.lock:
            self._objects.finish(source)
        self._readings.wake()

    def close(self, patience: float = 10.0) -> None:
        """Reads what waits, ends all words, and tells that. Twice does no harm."""
        self._readings.close(patience)

    def __enter__(self) -> WordProbe:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _look(self, frame: FrameInBatch, objects: list[Object], wanted: list[_Wanted]) -> list[tuple[Object, Voted]]:
        """Adds those whose crops may be worth a read; what is to be written on which object."""
        told, untracked = [], False
        with self._objects.lock:
            source = self._objects.begin(frame)
            for each in objects:
                if self.classes is not None and each.class_id not in self.classes:
                    continue
                if each.number is None:
                    untracked = True
                    continue
                followed = self._objects.seen(source, each)
                if (word := self._objects.word(followed)) is not None:
                    told.append((each, word))
                if not followed.pending and self._schedule.due(followed.track, source.frames, source.clock.began):
                    wanted.append(_Wanted(frame, source, followed))
            self._objects.expire(source)
        if untracked:
            self.trouble("objects have no number, and are not read: nvtracker must come before the probe")
        return told

    def _cut(self, batch: Batch, wanted: list[_Wanted], until: float) -> None:
        self._turn += 1
        taken: Counter[int] = Counter()
        surfaces: dict[int, np.ndarray] = {}
        with ExitStack() as stack:
            for each in wanted:
                if self._readings.full or time.perf_counter() >= until:
                    return
                place = each.frame.place
                if taken[place] == self.most:
                    continue
                if place not in surfaces:
                    surfaces[place] = stack.enter_context(batch.pixels(each.frame))
                each.followed.tried = self._turn
                if (request := self._request(surfaces[place], each)) is not None:
                    taken[place] += 1
                    self._readings.offer(request)

    def _request(self, pixels: np.ndarray, wanted: _Wanted) -> Request | None:
        """With a copy of the object's pixels; None where they are not worth a read."""
        followed, source, size = wanted.followed, wanted.source, np.array(pixels.shape[1::-1])
        quad = followed.track.quad
        if not np.isfinite(quad).all():
            return None
        x0, y0 = np.clip(np.floor(quad[0]), 0, size).astype(int)
        x1, y1 = np.clip(np.ceil(quad[2]), 0, size).astype(int)
        if min(x1 - x0, y1 - y0) < 3:
            return None
        crop = np.ascontiguousarray(pixels[y0:y1, x0:x1])
        clear = quality(grey(Frame(crop, 0.0)), quad - np.array([x0, y0], np.float32))
        partial = bool((quad < EDGE).any() or (quad > size - EDGE).any())
        with self._objects.lock:
            if not self._schedule.worth(followed.track, clear, source.frames, source.clock.began):
                return None
            followed.pending = True
            return Request(source, followed, crop, quad, clear, partial, source.clock.began, source.frames)
