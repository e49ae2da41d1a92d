"""Crops read by a thread of their own, so that no pipeline waits for words."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable

from clip4str.runtime import Recognizer

from ..events import Event
from ..photo import read_crops
from .objects import Objects, Request

MOST = 64  # crops that wait,
MOST_BYTES = 64 << 20  # and what they take together


class Readings:
    """on_event: gets every event, in this thread. trouble: gets what goes wrong; the thread goes on."""

    def __init__(
        self, recognizer: Recognizer, objects: Objects, on_event: Callable[[Event], object] | None,
        trouble: Callable[[object], None],
    ) -> None:  # fmt: skip
        self.recognizer, self.objects, self.on_event, self.trouble = recognizer, objects, on_event, trouble
        self._waiting: deque[Request] = deque()
        self._bytes = 0
        self.closing = False
        self._change = threading.Condition()  # guards these; never held together with the objects' lock
        self._thread = threading.Thread(target=self._work, name="read words", daemon=True)
        self._thread.start()

    @property
    def full(self) -> bool:
        return len(self._waiting) >= MOST or self._bytes >= MOST_BYTES or self.closing

    def offer(self, request: Request) -> None:
        with self._change:
            self._waiting.append(request)
            self._bytes += request.crop.nbytes
            self._change.notify_all()

    def wake(self) -> None:
        """There are events to tell."""
        with self._change:
            self._change.notify_all()

    def close(self, patience: float) -> None:
        """What waits is read, and told, for so many seconds. Twice does no harm."""
        with self._change:
            self.closing = True
            self._change.notify_all()
        self._thread.join(patience)
        if self._thread.is_alive():
            with self._change:
                self._waiting.clear()
            self.trouble(f"words are still being read after {patience:g} s; they are not waited for")

    def _work(self) -> None:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._waiting or self.objects.told or self.closing)
                requests = list(self._waiting)
                self._waiting.clear()
                self._bytes = 0
                last = self.closing and not requests
            if requests:
                self._read(requests)
            if last:
                with self.objects.lock:
                    self.objects.finish()
            self._tell()
            if last:
                return

    def _read(self, requests: list[Request]) -> None:
        try:
            reads = read_crops(self.recognizer, [request.crop for request in requests])
            with self.objects.lock:
                for request, read in zip(requests, reads):
                    self.objects.learn(request, read)
        except Exception as error:  # the network's libraries have many kinds
            self.trouble(error)
            with self.objects.lock:
                for request in requests:
                    request.followed.pending = False

    def _tell(self) -> None:
        while True:
            with self.objects.lock:
                if not self.objects.told:
                    return
                event = self.objects.told.popleft()
            if self.on_event is not None:
                try:
                    self.on_event(event)
                except Exception as error:
                    self.trouble(f"on_event: {type(error).__name__}: {error}")
