"""What is told of the words of one source, and when: each found once, its changes, its end."""

from __future__ import annotations

import numpy as np

from .events import Event, WordChanged, WordEnded, WordFound
from .photo import turned
from .track import State, Track

TELL = 0.5  # confidence from which an unsettled word is told
SEEN = 2  # searches that found a word which was never that sure, for it to be told at its end


class Telling:
    """least: confidence below which a word that was never told is not told at its end. words: that were told; unsure:
    that were not."""

    def __init__(self, number: int, least: float) -> None:
        self.number, self.least = number, least
        self.words = self.unsure = 0
        self._pending: list[Event] = []

    def add(self, event: Event) -> None:
        self._pending.append(event)

    def take(self) -> list[Event]:
        """What came up since the last call."""
        told, self._pending = self._pending, []
        return told

    def read(self, track: Track, now: float) -> None:
        """After a read, in the frame at `now`."""
        result = track.result
        if not result.text or result.text == track.told:
            return
        quad = turned(track.quad, track.turns).copy()
        if not track.told and (track.state is State.SETTLED or result.confidence >= TELL) and track.twin is None:
            self._found(track, quad, now)
        elif track.told:
            self._changed(track, quad, now)

    def end(self, track: Track, now: float) -> None:
        """Of a word that was told, or that was not sure enough before but is all there is. Once a track."""
        result, best = track.result, track.best
        seen = bool(result.text) and track.searches >= SEEN
        if track.ended_told or not (track.told or result.text):
            return
        if not track.told and (not seen or result.confidence < self.least):
            self.unsure, track.ended_told = self.unsure + 1, True
            return
        quad = best.quad if best else turned(track.quad, track.turns)
        if not track.told:
            self._found(track, quad, now)
        elif track.told != result.text:
            self._changed(track, quad, now)
        track.ended_told = True
        self.add(WordEnded(
            self.number, track.number, result.text, result.confidence, track.start, track.end,
            best.time if best else track.start, quad, track.reads, track.frames, track.label or None,
            best.crop if best else None, track.partial,
        ))  # fmt: skip

    def _found(self, track: Track, quad: np.ndarray, now: float) -> None:
        result = track.result
        self.words += 1
        track.told = result.text
        self.add(WordFound(self.number, track.number, now, track.start, result.text, result.confidence, quad,
                           track.label or None))  # fmt: skip

    def _changed(self, track: Track, quad: np.ndarray, now: float) -> None:
        result = track.result
        self.add(WordChanged(self.number, track.number, now, result.text, track.told, result.confidence, quad))
        track.told = result.text
