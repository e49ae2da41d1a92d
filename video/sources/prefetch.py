"""Files are decoded ahead, a few frames."""

from __future__ import annotations

from ..frames import Frame
from .base import Source
from .threads import Threaded


class Prefetch(Threaded):
    """Reads so many frames ahead, then waits: nothing is lost."""

    def __init__(self, source: Source, ahead: int = 4) -> None:
        self._ahead = max(1, ahead)
        super().__init__(source)

    def _put(self, frame: Frame) -> None:
        self._ready.wait_for(lambda: len(self._waiting) < self._ahead or self.stopping.is_set())
        self._waiting.append(frame)
