"""When words are searched: before a frame is read, or on a thread of its own, while the next frames are followed.

A search takes as long as several frames. A live source would drop frames for it; so there its result is carried to
where its words are by then.
"""

from __future__ import annotations

import time
from concurrent.futures import Executor, Future

import numpy as np

from .detect import NOTHING, Detections, Detector
from .detect.contract import checked
from .flow import Small, follow
from .frames import Frame
from .geometry import sound

Region = tuple[int, int, int, int]


class Searching:
    """region: x, y, width, height, in which a word's middle is to be. background: what runs searches meanwhile; None to
    wait for them. Detectors are called by one thread at a time."""

    def __init__(self, detector: Detector, region: Region | None = None, background: Executor | None = None) -> None:
        self._detector, self._region, self._background = detector, region, background
        self._future: Future[tuple[Detections, float]] | None = None
        self._from: Small | None = None

    @property
    def pending(self) -> bool:
        return self._future is not None

    def begin(self, frame: Frame, seen: Small) -> tuple[Detections, float] | None:
        """Words of a frame and the milliseconds that it took; None where that is to come, see `result`. Pixels on a GPU
        are searched at once: what gave them may write its next frame there."""
        if self._background is None or frame.on_device:
            return self._search(frame)
        self._future, self._from = self._background.submit(self._search, frame), seen
        return None

    def result(self, now: Small, wait: bool = False) -> tuple[Detections, float] | None:
        """Words of the frame that was begun with, as they are in the present one; None until the search is over."""
        if self._future is None or self._from is None or not (wait or self._future.done()):
            return None
        (found, took), before = self._future.result(), self._from
        self.drop()
        started = time.perf_counter()
        if len(found.quads) and before is not now:
            found = found._replace(quads=follow(before, now, np.asarray(found.quads, np.float32)).quads)
        return found, took + 1000 * (time.perf_counter() - started)

    def drop(self) -> None:
        """What is under way is of another scene, or taken."""
        if self._future is not None:
            self._future.cancel()
        self._future = self._from = None

    def _search(self, frame: Frame) -> tuple[Detections, float]:
        started = time.perf_counter()
        found = self._inside(checked(self._detector.detect(frame), type(self._detector).__name__), frame.size)
        return found, 1000 * (time.perf_counter() - started)

    def _inside(self, found: Detections, size: tuple[int, int]) -> Detections:
        """Of the region alone, and such as can be cut out."""
        if len(found.quads) == 0:
            return NOTHING
        height, width = size
        x, y, w, h = self._region or (0, 0, width, height)
        good = sound(found.quads)
        middle = np.where(good[:, None], found.quads.mean(1), -1)
        for low, high, axis in ((max(x, 0), min(x + w, width), 0), (max(y, 0), min(y + h, height), 1)):
            good &= (middle[:, axis] >= low) & (middle[:, axis] < high)
        labels = tuple(label for label, keep in zip(found.labels, good) if keep)
        return Detections(found.quads[good], found.scores[good], labels)
