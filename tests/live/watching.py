"""A VideoReader that reads a live source in a thread, while a test breaks it. The word is whatever is bright."""

from __future__ import annotations

import threading
import time
from collections import Counter

import numpy as np

from clip4str.runtime import Word
from clip4str.video import Gap, VideoReader, WordEnded, WordFound, open_source
from clip4str.video.detect import Detections
from clip4str.video.frames import Frame, grey

LONG = 60.0  # seconds that nothing here takes


class Bright:
    """Detector and recogniser at once: one word, where the picture is bright."""

    def detect(self, frame: Frame) -> Detections:
        y, x = np.nonzero(grey(frame) > 170)
        if len(x) < 50:
            return Detections(np.zeros((0, 4, 2), np.float32), np.zeros(0, np.float32))
        left, top, right, bottom = x.min() - 3, y.min() - 3, x.max() + 3, y.max() + 3
        quad = np.array([[[left, top], [right, top], [right, bottom], [left, bottom]]], np.float32)
        return Detections(quad, np.ones(1, np.float32))

    def read(self, images, on_error="raise"):
        return [Word("STATION", 0.95, (0.95,))] * len(images)


class Watched:
    """Everything that reading sources tells: frames and events with the moment, by time.monotonic(), they came."""

    def __init__(self, *addresses: str, reader: VideoReader | None = None, **options) -> None:
        options = {"timeout": 5.0, **options}
        self.sources = [open_source(address, **options) for address in addresses]
        self.reader = reader or VideoReader(Bright(), Bright())
        self.frames: list[tuple[float, int, Frame]] = []
        self.events: list[tuple[float, object]] = []
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._read)
        self._thread.start()

    def _read(self) -> None:
        def watch(number: int, frame: Frame, _: object) -> None:
            self.frames.append((time.monotonic(), number, frame))

        try:
            for event in self.reader.run(*self.sources, watch=watch):
                self.events.append((time.monotonic(), event))
        except Exception as error:
            self.error = error

    def all(self, kind: type, source: int = 0) -> list:
        return [event for _, event in self.events if isinstance(event, kind) and event.source == source]

    def until(self, true, what: str = "") -> None:
        end = time.monotonic() + LONG
        while not true():
            assert self.error is None, self.error
            assert time.monotonic() < end, what or "waited too long"
            time.sleep(0.01)

    def more_frames(self, count: int = 12, source: int = 0) -> None:
        def seen() -> int:
            return sum(number == source for _, number, _ in list(self.frames))

        already = seen()
        self.until(lambda: seen() >= already + count, "no frames came")

    def until_word(self, count: int = 1, source: int = 0) -> None:
        self.until(lambda: len(self.all(WordFound, source)) >= count, "no word was found")

    def until_ended(self, count: int = 1, source: int = 0) -> None:
        self.until(lambda: len(self.all(WordEnded, source)) >= count, "no word ended")

    def until_gap(self, count: int = 1, source: int = 0) -> None:
        self.until(lambda: len(self.all(Gap, source)) >= count, "no gap was told")

    def close(self) -> None:
        for source in self.sources:
            source.close()
        self._thread.join(LONG)
        assert not self._thread.is_alive()

    def __enter__(self) -> Watched:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def check(self) -> None:
        """What holds however a source breaks: times grow, every word found has ended once, within what was seen, and
        gaps are as long as nothing came."""
        for source in range(len(self.sources)):
            came = [(moment, frame) for moment, number, frame in self.frames if number == source]
            times = [frame.time for _, frame in came]
            assert all(a < b for a, b in zip(times, times[1:]))
            found = Counter(event.track for event in self.all(WordFound, source))
            ended = Counter(event.track for event in self.all(WordEnded, source))
            assert found == ended and all(count == 1 for count in ended.values())
            for word in self.all(WordEnded, source):
                assert 0 <= word.start <= word.end
                for gap in self.all(Gap, source):
                    assert word.end <= gap.start + 1e-3 or word.start >= gap.end - 1e-3, (word, gap)
            for gap in self.all(Gap, source):
                after = next(i for i, each in enumerate(times) if abs(each - gap.end) < 1e-6)
                assert times[after - 1] <= gap.start <= gap.end == times[after], (times[after - 2 : after + 2], gap)
                waited = came[after][0] - came[after - 1][0]  # of the reader's clock, which the source does not know
                assert abs(gap.end - times[after - 1] - waited) < 3.0, (gap, waited)
