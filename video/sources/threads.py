"""Sources that are read ahead of their user, by a thread of their own."""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections import deque
from dataclasses import replace

from ..frames import Frame
from .base import Source

_running: weakref.WeakSet[Threaded] = weakref.WeakSet()
PATIENCE = 1.0  # seconds that close() waits for a decoder that hangs; its thread is a daemon, and goes when it can


class Threaded(Source):
    """What the two kinds share: `_put` decides what becomes of frames that nobody has fetched yet."""

    def __init__(self, source: Source) -> None:
        super().__init__()
        self.source = source
        self.name, self.size, self.rate, self.frames = source.name, source.size, source.rate, source.frames
        self._waiting: deque[Frame] = deque()
        self._ready = threading.Condition()  # guards all that follows
        self._error: BaseException | None = None
        self._ended = False
        self._overtaken = 0
        self._thread = threading.Thread(target=self._read, name=f"read {self.name}", daemon=True)
        self._thread.start()
        _running.add(self)

    @property
    def dropped(self) -> int:  # type: ignore[override]
        return self._overtaken + self.source.dropped

    def __next__(self) -> Frame:
        with self._ready:
            self._ready.wait_for(self._can_answer)
            if self._waiting and not self.stopping.is_set():
                frame = self._waiting.popleft()
                self._ready.notify_all()
                return frame
            error, self._error = self._error, None
        if error is not None:
            raise error
        raise StopIteration

    def wait(self, timeout: float | None = None) -> bool:
        with self._ready:
            return self._ready.wait_for(self._can_answer, timeout)

    def _can_answer(self) -> bool:
        return bool(self._waiting) or self._ended or self.stopping.is_set()

    def _put(self, frame: Frame) -> None:
        """Called by the thread, with self._ready held."""
        raise NotImplementedError

    def _pace(self, frame: Frame) -> None:
        """Called by the thread before it hands a frame over."""

    def _read(self) -> None:
        error: BaseException | None = None
        try:
            for frame in self.source:
                self._pace(frame)
                with self._ready:
                    self._put(replace(frame, arrived=time.monotonic()))
                    self._ready.notify_all()
                if self.stopping.is_set():
                    break
        except BaseException as raised:
            error = raised
        finally:
            try:
                self.source.close()  # here, as no decoder may be closed while it decodes
            except Exception as raised:
                error = error or raised
            with self._ready:
                self._error, self._ended = error, True
                self._ready.notify_all()

    def close(self) -> None:
        self.stopping.set()
        self.source.stopping.set()
        with self._ready:
            self._waiting.clear()
            self._error = None
            self._ready.notify_all()
        if threading.current_thread() is not self._thread:
            self._thread.join(PATIENCE)


@atexit.register
def _close_all() -> None:
    """A thread must not be decoding while Python unloads the decoder."""
    for source in list(_running):
        source.close()
