"""What viewers are told: the words that are kept, and how the sources are."""

from __future__ import annotations

import secrets
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..events import Event, WordChanged, WordEnded, WordFound, as_json
from ..frames import Frame
from ..outputs.csv import csv_text
from ..sources.base import Source
from .health import Health
from .pictures import CROP, CROP_QUALITY, Pictures, jpeg

KEPT = 1000  # words; older ones are let go


@dataclass
class _Word:
    """number: in the order in which words were found. change: of the board, when it last changed. began: when it was
    first seen, seconds since 1970, of live sources. crop: JPEG; shots: how often it was told."""

    word: WordFound | WordEnded
    number: int
    change: int
    began: float | None
    crop: bytes | None = None
    shots: int = 0


class Board:
    """Its state, not its past, is what viewers get: each asks for what has changed since the change that it knows of.
    So nothing waits in a queue for a slow one, and one that comes back goes on where it was.

    run: tells this board from those of other runs of the program. changes: how many there were. kept: words at most.
    """

    def __init__(self, sources: Sequence[Source], pictures: Pictures, kept: int = KEPT) -> None:
        self.pictures = pictures
        self.run, self.kept, self.changes, self.closed = secrets.token_hex(4), kept, 0, False
        self.names = [source.name for source in sources]
        self.change = threading.Condition()  # guards all that follows
        self._health = [Health(source) for source in sources]
        self._live = [source.live for source in sources]
        self._words: dict[tuple[int, int], _Word] = {}
        self._found = 0

    def frame(self, source: int, frame: Frame) -> None:
        with self.change:
            self._health[source].frame(frame)

    def write(self, event: Event) -> None:
        best = event.crop if isinstance(event, WordEnded) else None
        crop = None if best is None or not best.size else jpeg(best, CROP, CROP_QUALITY)
        with self.change:
            self._health[event.source].event(event)
            if isinstance(event, (WordFound, WordChanged, WordEnded)):
                self._take(event, crop)
                self.change.notify_all()

    def _take(self, event: WordFound | WordChanged | WordEnded, crop: bytes | None) -> None:
        key = event.source, event.track
        kept = self._words.get(key)
        if isinstance(event, WordChanged):
            if kept is None:
                return
            word: WordFound | WordEnded = replace(
                kept.word, text=event.text, confidence=event.confidence, quad=event.quad, time=event.time
            )
        else:
            word = replace(event, crop=None) if isinstance(event, WordEnded) else event
        self.changes += 1
        if kept is None:
            while len(self._words) >= self.kept:
                del self._words[next(iter(self._words))]
            self._found += 1
            began = None
            if self._live[event.source]:
                now = event.end if isinstance(event, WordEnded) else event.time
                began = time.time() - max(0.0, now - word.start)
            kept = self._words[key] = _Word(word, self._found, 0, began)
        kept.word, kept.change = word, self.changes
        if crop is not None:
            kept.crop, kept.shots = crop, kept.shots + 1

    def since(self, change: int) -> tuple[int, list[dict[str, Any]]]:
        """How many changes there were, and the words that changed after that one, as JSON lines have them, and number,
        began, crop: see _Word."""
        with self.change:
            changed = sorted((w for w in self._words.values() if w.change > change), key=lambda w: w.change)
            told = [(w.word, w.number, w.began, w.shots) for w in changed]
            now = self.changes
        return now, [{**as_json(w), "number": n, "began": began, "crop": shots} for w, n, began, shots in told]

    def wait(self, change: int, timeout: float) -> None:
        """Until something has changed since that change, the board is closed, or so many seconds are over."""
        with self.change:
            self.change.wait_for(lambda: self.changes > change or self.closed, timeout)

    def status(self) -> dict[str, Any]:
        """first: the number of the oldest word that is kept; sources: Health.told of each."""
        with self.change:
            first = next((word.number for word in self._words.values()), self._found + 1)
            return {"first": first, "words": self._found, "sources": [health.told() for health in self._health]}

    def crop(self, source: int, track: int) -> bytes | None:
        """A word's picture, JPEG: its best one once it has ended; before that, as it looks now."""
        with self.change:
            kept = self._words.get((source, track))
            if kept is None or kept.crop is not None or isinstance(kept.word, WordEnded):
                return None if kept is None else kept.crop
        crop = self.pictures.cut(source, track)
        with self.change:
            kept.crop = kept.crop or crop
        return kept.crop

    def csv(self) -> str:
        """All words that are kept, as outputs.Csv writes them; what is in view still has no end."""
        with self.change:
            words = [kept.word for kept in self._words.values()]
        return csv_text(words, self.names)

    def close(self) -> None:
        with self.change:
            self.closed = True
            self.change.notify_all()
