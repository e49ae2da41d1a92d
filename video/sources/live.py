"""What cannot wait: who is late gets the newest frame."""

from __future__ import annotations

import time
from dataclasses import replace

from ..frames import Frame
from .base import Source
from .threads import Threaded


class Newest(Threaded):
    """Keeps the newest frame alone, and counts those that it overtook. paced: of a file, frames come when they are due.

    What happened before a frame that is dropped is told of the next one.
    """

    live = True

    def __init__(self, source: Source, paced: bool = False) -> None:
        self._paced = paced
        self._began: float | None = None
        super().__init__(source)

    def _pace(self, frame: Frame) -> None:
        if self._paced:
            if self._began is None:
                self._began = time.monotonic() - frame.time
            self.stopping.wait(max(0.0, self._began + frame.time - time.monotonic()))

    def _put(self, frame: Frame) -> None:
        if self._waiting:
            overtaken = self._waiting.popleft()
            self._overtaken += 1
            if overtaken.broken and not frame.broken:
                frame = replace(frame, broken=overtaken.broken)
        self._waiting.append(frame)
