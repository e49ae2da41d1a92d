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
    """Of each client: words found and ended by track, gaps by reason, texts; and frames after a break."""

    found: dict[int, Counter[int]] = field(default_factory=lambda: {n: Counter() for n in range(len(CLIENTS))})
    ended: dict[int, Counter[int]] = field(default_factory=lambda: {n: Counter() for n in range(len(CLIENTS))})
    gaps: Counter[str] = field(default_factory=Counter)
    texts: list[tuple[str, int]] = field(default_factory=list)
    frames: Counter[int] = field(default_factory=Counter)
    back_steps: int = 0
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
            self.found[event.source][event.track] += 1
        elif isinstance(event, WordEnded):
            self.ended[event.source][event.track] += 1
            self.texts.append((event.text, event.reads))
        elif isinstance(event, Gap):
            self.gaps[f"{event.reason} ({CLIENTS[event.source]})"] += 1

    @property
    def lost(self) -> int:
        """Words that were found, and have not ended once each."""
        return sum(
            self.found[n][track] != 1 or self.ended[n][track] != 1
            for n in self.found for track in {*self.found[n], *self.ended[n]}
        )  # fmt: skip

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
