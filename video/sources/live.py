"""What cannot wait: who is late gets the newest frames."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

from ..frames import Frame
from .base import Source
from .threads import Threaded


class Newest(Threaded):
    """Keeps the newest frames alone, and counts those that they overtook. paced: of a file, frames come when they are
    due, from when somebody takes the first one. kept: how many: where words are searched in some frames, those take
    longer than others.

    What happened before a frame that is dropped is told of the next one.
    """

    live = True

    def __init__(self, source: Source, paced: bool = False, kept: int = 1) -> None:
        self._paced, self._kept = paced, kept
        self._began, self._taken = 0.0, threading.Event()
        self._first = True
        super().__init__(source)

    def __next__(self) -> Frame:
        frame = super().__next__()
        if not self._taken.is_set():
            self._began = time.monotonic() - frame.time
            self._taken.set()
        return frame

    def close(self) -> None:
        self.stopping.set()
        self._taken.set()
        super().close()

    def _pace(self, frame: Frame) -> None:
        if self._paced and not self._first:
            self._taken.wait()
            self.stopping.wait(max(0.0, self._began + frame.time - time.monotonic()))
        self._first = False

    def _put(self, frame: Frame) -> None:
        self._waiting.append(frame)
        while len(self._waiting) > self._kept:
            overtaken = self._waiting.popleft()
            self._overtaken += 1
            if overtaken.broken and not self._waiting[0].broken:
                self._waiting[0] = replace(self._waiting[0], broken=overtaken.broken)
