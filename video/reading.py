"""What is read when: crops at once, or those of live sources on a thread of its own, while the next frames are
followed.

A batch takes as long as a frame or two. A live source would drop frames for it; so there one batch is read at a time,
and its answers are learned in a later frame, as of the frame that they are of.
"""

from __future__ import annotations

import time
from collections import Counter, deque
from collections.abc import Sequence
from concurrent.futures import Executor, Future
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from clip4str.runtime import FrameQuads, Recognizer

from .frames import Frame
from .photo import UNREAD, Read, read_crops, turned

if TYPE_CHECKING:
    from .requests import Request
    from .stream import Stream

Asked = Sequence[tuple["Stream", list["Request"]]]


class Reading:
    """crops: keep pictures of words. background: what reads meanwhile, for `begin`."""

    def __init__(self, recognizer: Recognizer, crops: bool = True, background: Executor | None = None) -> None:
        self._recognizer, self._crops, self._background = recognizer, crops, background
        self._future: Future[tuple[list[Read], float]] | None = None
        self._asked: list[tuple[Stream, Request]] = []
        self._answers: deque[tuple[tuple[Stream, Request], Read]] = deque()

    @property
    def busy(self) -> bool:
        """Is a batch under way, or are its answers not learned yet?"""
        return self._future is not None or bool(self._answers)

    def at_once(self, looked: Asked) -> None:
        """All streams' crops in as few batches as there can be; tall ones the way that reads best."""
        began = time.perf_counter()
        asked, crops = self._cut(looked)
        if crops:
            reads, _ = self._read(crops)
            _account(asked, 1000 * (time.perf_counter() - began), aside=False)
            for one, read in zip(asked, reads):
                _learn(one, read)

    def begin(self, looked: Asked) -> None:
        """The same, to be learned by `answered`; nothing may be asked while it is busy. Pixels on a GPU are read at
        once: what gave them may write its next frame there."""
        asked, crops = self._cut(looked)
        if crops:
            assert self._background is not None and not self.busy
            self._asked = asked
            self._future = self._background.submit(self._read, crops)

    def answered(self, wait: bool = False) -> None:
        """Lets the streams learn what has been read meanwhile, if it has. wait: until it has. Raises what reading
        raised. Interrupted, it goes on when it is called again."""
        if self._future is not None and (wait or self._future.done()):
            try:
                reads, took = self._future.result()
            except Exception:
                self._future, self._asked = None, []
                raise
            self._answers.extend(zip(self._asked, reads))
            _account(self._asked, took, aside=True)
            self._future, self._asked = None, []
        while self._answers:
            _learn(*self._answers.popleft())

    def _cut(self, looked: Asked) -> tuple[list[tuple[Stream, Request]], list[np.ndarray]]:
        """Requests and their crops; those on a GPU are read, and left out."""
        here = [(stream, requests) for stream, requests in looked if requests and not stream.frame.on_device]
        self._read_on_device([(stream, requests) for stream, requests in looked if requests and stream.frame.on_device])
        asked = [(stream, request) for stream, requests in here for request in requests]
        return asked, [crop for stream, requests in here for crop in stream.crops(requests)]

    def _read(self, crops: Sequence[np.ndarray]) -> tuple[list[Read], float]:
        """And the milliseconds that it took."""
        began = time.perf_counter()
        return read_crops(self._recognizer, crops), 1000 * (time.perf_counter() - began)

    def _read_on_device(self, asked: Asked) -> None:
        """Words of frames that lie on a GPU, where they are cut out; a picture of one is fetched only where it is the
        best so far."""
        if not asked:
            return
        began = time.perf_counter()
        frames = [stream.frame for stream, _ in asked]
        quads = [[request.quad for request in requests] for _, requests in asked]
        named = [FrameQuads(frame.pixels, q, **frame.colour) for frame, q in zip(frames, quads)]
        answers = self._recognizer.read_frames(named, on_error="skip")
        each = 1000 * (time.perf_counter() - began) / sum(map(len, quads))
        for (stream, requests), frame, words in zip(asked, frames, answers):
            for request, found in zip(requests, words):
                word = found or UNREAD
                shot = partial(self._shot, frame, turned(request.quad, word.turns))
                stream.learn(request, shot, word.text, word.confidence, word.turns)
            stream.read_in(each * len(requests), len(requests), aside=False)

    def _shot(self, frame: Frame, quad: np.ndarray) -> np.ndarray | None:
        return self._recognizer.crop(frame.pixels, quad, **frame.colour) if self._crops else None


def _account(asked: Sequence[tuple[Stream, Request]], took: float, aside: bool) -> None:
    for stream, crops in Counter(stream for stream, _ in asked).items():
        stream.read_in(took * crops / len(asked), crops, aside)


def _learn(asked: tuple[Stream, Request], read: Read) -> None:
    stream, request = asked
    stream.learn(request, partial(_given, read.crop), read.word.text, read.word.confidence, read.turns)


def _given(crop: np.ndarray) -> np.ndarray:
    return crop
