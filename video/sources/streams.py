"""Cameras and streams: opened again where they end or stand still, as an end is all that a broken connection shows."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from clip4str.core.errors import SourceError

from ..frames import Frame
from .base import Decoder, Picture, Source
from .times import LiveClock

FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds before trying again, doubled each time
STEADY = 10.0  # seconds that a connection must have lasted for the next one to be tried soon


class Stream(Source):
    """open_again: makes a new connection, or raises SourceError. give_up: seconds without a frame after which the
    source raises SourceError; None: never. first_wait: seconds before it is first tried again.

    The first frame of a new connection is `broken`, "reconnected". Raises SourceError where the first connection gives
    none.
    """

    live = True

    def __init__(
        self,
        decoder: Decoder,
        open_again: Callable[[], Decoder],
        give_up: float | None = None,
        first_wait: float = FIRST_WAIT,
    ) -> None:
        super().__init__()
        self.name, self.rate = decoder.name, decoder.rate
        self._decoder: Decoder | None = decoder
        self._open, self._give_up, self._first_wait = open_again, give_up, first_wait
        self._wait, self._since = first_wait, time.monotonic()
        self._clock = LiveClock(decoder.rate)
        self._pictures: Iterator[Picture] = decoder.pictures()
        self._first = self._picture()
        if self._first is None:
            self.close()
            raise SourceError(f"{self.name}: connected, but no frame came")
        self.size = Frame(self._first.pixels, 0.0, layout=self._first.layout).size

    def __next__(self) -> Frame:
        picture, self._first = self._first, None
        picture = picture or self._picture()
        broken = ""
        last = time.monotonic()
        while picture is None:
            broken = "reconnected"
            self._reconnect(last)
            picture = self._picture()
        return self._clock.frame(picture, broken)

    def _picture(self) -> Picture | None:
        try:
            return next(self._pictures, None)
        except SourceError:
            return None

    def _reconnect(self, last: float) -> None:
        """Raises StopIteration where it is closed meanwhile, SourceError where it takes too long."""
        self.close()
        if time.monotonic() - self._since > STEADY:
            self._wait = self._first_wait
        while True:
            if self._give_up is not None and time.monotonic() - last > self._give_up:
                raise SourceError(f"{self.name}: broke off, and gave no frame for {self._give_up:g} s")
            if self.stopping.wait(self._wait):
                raise StopIteration
            self._wait = min(2 * self._wait, LONGEST_WAIT)
            try:
                self._decoder = self._open()
            except SourceError:
                continue
            self._since, self._pictures = time.monotonic(), self._decoder.pictures()
            return

    def close(self) -> None:
        if self._decoder is not None:
            self._decoder.close()
            self._decoder = None
        self._pictures = iter(())
