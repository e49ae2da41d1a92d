"""Both clients beside each other: what a reader tells of one camera, and when it looked at frames."""

from __future__ import annotations

import importlib.util
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from clip4str.core.errors import UsageError
from clip4str.video.events import Event, Gap, WordEnded, WordFound
from clip4str.video.frames import Frame
from clip4str.video.reader import VideoReader
from clip4str.video.sources import open_source
from clip4str.video.sources.base import Source

from .camera import Camera, missing
from .failures import TIMEOUT

CLIENTS = ("av", "opencv")


def check_camera() -> None:
    """Raises UsageError where no camera, or one of the clients, can run."""
    if missing():
        raise UsageError(f"the RTSP server {missing()}")
    if importlib.util.find_spec("av") is None:
        raise UsageError("PyAV is one of the clients: pip install 'clip4str[av]'")


@dataclass
class Watch:
    """Words found and ended, gaps by reason, frames after a break. Keeps what is open alone: a benchmark of memory must
    not grow itself. known: the words that are shown, in lower case."""

    known: frozenset[str] = frozenset()
    found: int = 0
    ended: int = 0
    read_thrice: int = 0
    right_of_these: int = 0
    gaps: Counter[str] = field(default_factory=Counter)
    frames: Counter[int] = field(default_factory=Counter)
    back_steps: int = 0
    _open: set[tuple[int, int]] = field(default_factory=set)
    _wrong: int = 0  # found while open, or ended while not
    _last: dict[int, float] = field(default_factory=dict)
    _broken: dict[int, list[float]] = field(default_factory=lambda: {n: [] for n in range(len(CLIENTS))})
    _seen: threading.Condition = field(default_factory=threading.Condition)

    def frame(self, number: int, frame: Frame, _: Any) -> None:
        self.frames[number] += 1
        self.back_steps += frame.time <= self._last.get(number, -1.0)
        self._last[number] = frame.time
        if frame.broken:
            with self._seen:
                self._broken[number].append(time.monotonic())
                self._seen.notify_all()

    def event(self, event: Event) -> None:
        if isinstance(event, WordFound):
            self.found += 1
            self._wrong += (event.source, event.track) in self._open
            self._open.add((event.source, event.track))
        elif isinstance(event, WordEnded):
            self.ended += 1
            self._wrong += (event.source, event.track) not in self._open
            self._open.discard((event.source, event.track))
            if event.reads >= 3:
                self.read_thrice += 1
                self.right_of_these += event.text.casefold() in self.known
        elif isinstance(event, Gap):
            self.gaps[f"{event.reason} ({CLIENTS[event.source]})"] += 1

    @property
    def lost(self) -> int:
        """Words that were found, and have not ended once each."""
        return len(self._open) + self._wrong

    def recovered(self, number: int, broke: float, most: float) -> float | None:
        """When the first frame behind a break after `broke` was looked at; None where there was none in so many
        seconds."""
        with self._seen:
            self._seen.wait_for(lambda: any(when >= broke for when in self._broken[number]), most)
            return next((when for when in self._broken[number] if when >= broke), None)

    def forget(self) -> None:
        """Breaks so far, so that nothing grows."""
        with self._seen:
            for moments in self._broken.values():
                moments.clear()


def sources(camera: Camera) -> list[Source]:
    return [open_source(camera.address, backend=client, timeout=TIMEOUT) for client in CLIENTS]


def read(reader: VideoReader, opened: list[Source], watch: Watch) -> None:
    """Until the sources are closed."""
    for event in reader.run(*opened, watch=watch.frame):
        watch.event(event)
