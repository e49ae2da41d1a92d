"""How one source is: told by when its frames came, not by what it says of itself."""

from __future__ import annotations

import time
from collections import deque
from typing import Any

import numpy as np

from ..events import Event, Gap, Statistics
from ..frames import Frame
from ..gaps import FROZEN
from ..sources.base import Source

DEAD = 3.0  # seconds without a frame until a source is called dead; for slow ones, SLOW times their usual step
SLOW = 5.0
RECENT = 5.0  # seconds that rates and latencies are of


class Health:
    """Of one source. Called by the reader's thread and read by others, under Board's lock."""

    def __init__(self, source: Source) -> None:
        self.source, self.began = source, time.monotonic()
        self.frames = self.damaged = self.gaps = self.reconnects = 0
        self.ended = False
        self._times: deque[float] = deque(maxlen=256)
        self._latencies: deque[float] = deque(maxlen=256)
        self._pixels: Any = None
        self._same_since: float | None = None
        self._frozen = False
        self._size: tuple[int, int] | None = source.size

    def frame(self, frame: Frame) -> None:
        now = time.monotonic()
        self.frames += 1
        self.damaged += frame.damaged
        self._times.append(now)
        if frame.arrived is not None:
            self._latencies.append(now - frame.arrived)
        same = self._pixels is not None and unchanged(self._pixels, frame.pixels)
        if not same:
            self._same_since = frame.time
        self._frozen = same and frame.time - (self._same_since or 0.0) >= FROZEN
        self._pixels, self._size = frame.pixels, frame.size

    def event(self, event: Event) -> None:
        if isinstance(event, Gap):
            self.gaps += 1
            self.reconnects += event.reason == "reconnected"
        elif isinstance(event, Statistics) and event.ended:
            self.ended, self._pixels = True, None

    def state(self, now: float) -> str:
        """ "waiting" for the first frame, "live", "frozen" (the same picture for a while), "dead" (no frame for a
        while), "ended"."""
        if self.ended:
            return "ended"
        if not self._times:
            return "waiting"
        step = (self._times[-1] - self._times[0]) / max(1, len(self._times) - 1)
        if now - self._times[-1] > max(DEAD, SLOW * step):
            return "dead"
        return "frozen" if self._frozen else "live"

    def told(self) -> dict[str, Any]:
        """As plain values. age: seconds since the last frame; rate: frames a second; latency: seconds from a frame's
        coming out of the decoder to its words, the median; None where nothing is known."""
        now = time.monotonic()
        times = [each for each in self._times if now - each <= RECENT]
        late = sorted(list(self._latencies)[-len(times) :] if times else [])
        height, width = self._size or (0, 0)
        return {
            "state": self.state(now),
            "age": round(now - (self._times[-1] if self._times else self.began), 1),
            "rate": round((len(times) - 1) / (times[-1] - times[0]), 1) if len(times) > 2 else None,
            "latency": round(late[len(late) // 2], 3) if late else None,
            "frames": self.frames, "dropped": self.source.dropped, "damaged": self.damaged, "gaps": self.gaps,
            "reconnects": self.reconnects, "width": width, "height": height,
        }  # fmt: skip


def unchanged(before: Any, after: Any) -> bool:
    """The very same pixels? Most that are not differ already where few are looked at."""
    if not (isinstance(before, np.ndarray) and isinstance(after, np.ndarray) and before.shape == after.shape):
        return False
    return np.array_equal(before[::16, ::16], after[::16, ::16]) and np.array_equal(before, after)
