"""A VideoReader on a thread of its own, beside a pipeline."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from ..events import Event, Gap, Shown, Statistics
from ..frames import Frame
from .feed import Feed, Timing

if TYPE_CHECKING:
    from ..reader import VideoReader

PATIENCE = 10.0  # seconds that close() waits for a frame that is being read
REMEMBERED = 1.0  # seconds that words are taken to be where they were last seen


class Reading:
    """Frames go in by `feed`; `tell` gets each event with its Timing, `failed` what ended it, both on the thread.

    Tracks are numbered on over flushes, so that one number is one word as long as this lasts.
    """

    def __init__(
        self,
        reader: VideoReader,
        feed: Feed,
        tell: Callable[[Event, Timing], None],
        failed: Callable[[BaseException], None],
    ) -> None:
        self.feed, self._reader, self._tell, self._failed = feed, reader, tell, failed
        self._tracks, self._closed = 0, False
        self._seen: tuple[float, list[Shown]] = (0.0, [])
        self._thread = threading.Thread(target=self._work, name="clip4strreader", daemon=True)
        self._thread.start()

    def words(self, time: float) -> list[Shown]:
        """Quad, text and confidence of the words that were last seen, if that is not long before `time`."""
        seen, words = self._seen
        return words if abs(time - seen) <= REMEMBERED else []

    @property
    def ended(self) -> bool:
        """By what `failed` was told."""
        return not self._thread.is_alive()

    def close(self) -> None:
        """Every word is told. One frame may still have to be read for it; what takes too long is given up."""
        self.feed.shut()
        if threading.current_thread() is not self._thread:
            self._thread.join(PATIENCE)
        self._closed = True

    def _work(self) -> None:
        try:
            while (source := self.feed.begin()) is not None:
                tracks = 0
                for event in self._reader.run(source, watch=self._watch):
                    if isinstance(event, Statistics):
                        event = replace(event, dropped=source.dropped)
                    elif not isinstance(event, Gap):
                        tracks = max(tracks, event.track)  # Statistics.tracks is less where words came back
                        event = replace(event, track=self._tracks + event.track)
                    if not self._closed:
                        self._tell(event, self.feed.timing)
                self._tracks += tracks
                self._seen = (0.0, [])
        except BaseException as error:
            if not self._closed:
                self._failed(error)
        finally:
            self.feed.shut()

    def _watch(self, _: int, frame: Frame, shown: list[Shown]) -> None:
        self._seen = frame.time, [word for word in shown if word.text]
