"""Outputs that may be slow: each behind a queue, with a thread of its own."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

from ..events import Event, Shown, Statistics, WordChanged
from ..frames import Frame
from .base import Sink

FRAMES = 4  # that wait to be drawn: one is megabytes


def passing(event: Event) -> bool:
    """Will a later one say as much?"""
    return isinstance(event, WordChanged) or (isinstance(event, Statistics) and not event.ended)


class Queued:
    """A Sink before another one. Where that is `most` events late, passing events (WordChanged, Statistics but the
    last) are left out, counted in `dropped`, and the rest waits: no other event is ever lost. `show` is the other one's
    (Overlay): a few frames may wait.

    What the other sink raises is raised by the next call here; no more is written to it then.
    """

    def __init__(self, sink: Sink, most: int = 256) -> None:
        self.sink, self.most, self.dropped = sink, most, 0
        self._calls: deque[Callable[[], None]] = deque()
        self._change = threading.Condition()  # guards all that follows
        self._closing = False
        self._frames = 0
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._work, name=f"write {type(sink).__name__}", daemon=True)
        self._thread.start()

    def write(self, event: Event) -> None:
        with self._change:
            if len(self._calls) >= self.most and passing(event):
                self.dropped += 1
                return
            self._put(lambda: self.sink.write(event), lambda: len(self._calls) < self.most)

    def show(self, frame: Frame, words: Sequence[Shown]) -> None:
        sink: Any = self.sink

        def draw() -> None:
            sink.show(frame, words)
            with self._change:
                self._frames -= 1
                self._change.notify_all()

        with self._change:
            self._put(draw, lambda: self._frames < FRAMES)
            self._frames += 1

    def close(self) -> None:
        """Returns once everything is written, however long that takes."""
        with self._change:
            self._closing = True
            self._change.notify_all()
        self._thread.join()
        self._raise()

    def _put(self, call: Callable[[], None], room: Callable[[], bool]) -> None:
        self._change.wait_for(lambda: room() or self._error is not None)
        self._raise()
        self._calls.append(call)
        self._change.notify_all()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error

    def _work(self) -> None:
        try:
            while (call := self._next()) is not None:
                call()
        except BaseException as error:
            self._failed(error)
        try:
            self.sink.close()
        except BaseException as error:
            self._failed(error)

    def _next(self) -> Callable[[], None] | None:
        with self._change:
            self._change.wait_for(lambda: bool(self._calls) or self._closing)
            call = self._calls.popleft() if self._calls else None
            self._change.notify_all()
            return call

    def _failed(self, error: BaseException) -> None:
        with self._change:
            self._error = self._error or error
            self._calls.clear()
            self._change.notify_all()
