"""Frames that the caller makes: any iterable of Frames or of arrays."""

from __future__ import annotations

from collections.abc import Iterable, Sized
from dataclasses import replace
from typing import Any

from clip4str.core.errors import UsageError

from ..frames import Frame, check_frame
from .base import Source
from .times import DEFAULT_RATE


class Given(Source):
    """Passed on one by one, on the caller's thread. Arrays get their times from `rate` and are of `layout`; Frames
    keep what they say, and are numbered.

    Iterating raises ImageError for what is no frame, UsageError for times that step back, and what the iterable raises.
    """

    def __init__(self, items: Iterable[Any], rate: float | None = None, layout: str = "rgb") -> None:
        super().__init__()
        self.name, self.layout = f"<{type(items).__name__}>", layout
        self._rate = rate or DEFAULT_RATE
        self._items, self._index, self._last = iter(items), 0, 0.0
        self._began: float | None = None
        self.frames = len(items) if isinstance(items, Sized) else None

    def __next__(self) -> Frame:
        if self.stopping.is_set():
            raise StopIteration
        item, index = next(self._items), self._index
        if isinstance(item, Frame):
            frame = replace(item, index=index)
        else:
            frame = Frame(item, index / self._rate, index, self.layout, 1 / self._rate)
        check_frame(frame)
        if index and not frame.time >= self._last:
            raise UsageError(f"{self.name}: frame {index} is of {frame.time:g} s, the one before of {self._last:g} s")
        if self.size is None:
            self.size = frame.size
        elif frame.size != self.size and not frame.broken:
            frame = replace(frame, broken="size changed")
        self.size, self._index, self._last = frame.size, index + 1, frame.time
        return frame

    def close(self) -> None:
        self.stopping.set()
