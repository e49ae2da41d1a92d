"""Cameras and streams: opened again where they end or stand still, as an end is all that a broken connection shows.

When to try again. A whole try takes seconds where nobody answers, and says little where somebody does (refused, no such
stream, a wrong password: OpenCV tells them not apart). So the port is asked first, one TCP connection that is closed at
once:

- It does not answer (a server that is restarted, a camera without power): it is asked every ASKED seconds, one that is
  silent at most every ports.ANSWER, however long that lasts: a packet each, and the first answer is followed by a try.
  So an outage of hours is noticed to be over as soon as one of seconds. Every BLIND seconds it is tried all the same:
  the way there may have become too long for an answer in time.
- It answers (the stream has ended, or is refused): tried after FIRST_WAIT seconds, twice as long after each try that
  fails, at most LONGEST_WAIT, so that no account is locked and no log filled. That begins anew once a connection has
  given frames for STEADY seconds, or the port has been seen closed.
- It answers, and then nothing comes (a server that hangs): FIRST_WAIT again after every try that took SILENCE seconds
  or more. The time-out alone keeps such tries apart, and nobody counts them.
- There is no port to ask (UDP, cameras by number): as where it answers.

Waits are up to a third shorter by chance, so that not all clients of a server come back to it at once.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator

from clip4str.core.errors import SourceError

from ..frames import Frame
from .base import Decoder, Picture, Sizeless, Source
from .times import DEFAULT_RATE, LiveClock

ASKED = 0.3  # seconds from question to question, while the port does not answer
BLIND = 300.0  # seconds after which it is tried although the port does not answer
FIRST_WAIT, LONGEST_WAIT = 0.5, 30.0  # seconds before trying again what answers, doubled each time
SILENCE = 1.0  # seconds that a failed try must have taken for it to have had no answer
STEADY = 2.0  # seconds that a connection must have given frames for the next one to be tried soon


class Stream(Source):
    """open_again: makes a new connection, quickly or (after Sizeless) thoroughly, or raises SourceError; open_decoder.
    give_up: seconds without a frame after which the source raises SourceError; None: never. answers: asks the port, at
    most for a second; None: there is none. began: when the first connection was begun, by time.monotonic(). first_wait:
    seconds before it is first tried again.

    The first frame of a new connection is `broken`, "reconnected"; what had piled up until it was made is left out, and
    counts as dropped. Raises SourceError where the first connection gives no frame.
    """

    live = True

    def __init__(
        self,
        decoder: Decoder,
        open_again: Callable[[bool], Decoder],
        give_up: float | None = None,
        answers: Callable[[], bool] | None = None,
        began: float | None = None,
        first_wait: float = FIRST_WAIT,
    ) -> None:
        super().__init__()
        self.name, self.rate = decoder.name, decoder.rate
        self._decoder: Decoder | None = decoder
        self._open, self._give_up, self._answers, self._first_wait = open_again, give_up, answers, first_wait
        self._wait, self._began = first_wait, time.monotonic() if began is None else began
        self._came = self._began
        self._clock = LiveClock(decoder.rate)
        self._pictures: Iterator[Picture] = decoder.pictures()
        self._first = self._newest()
        if self._first is None:
            self.close()
            raise SourceError(f"{self.name}: connected, but no frame came")
        self.size = Frame(self._first.pixels, 0.0, layout=self._first.layout).size

    def __next__(self) -> Frame:
        picture, self._first = self._first, None
        picture = picture or self._picture()
        broken = ""
        while picture is None:
            broken = "reconnected"
            self._reconnect()
            picture = self._newest()
        return self._clock.frame(picture, broken)

    def _picture(self) -> Picture | None:
        try:
            picture = next(self._pictures, None)
        except SourceError:
            return None
        if picture is not None:
            self._came = time.monotonic()
        return picture

    def _newest(self) -> Picture | None:
        """The first picture of a connection that comes as it is made. FFmpeg keeps those that it looked at while it
        connected, up to seconds of them: taken for new, they would set the clock wrong by as much."""
        picture, step = self._picture(), 1 / (self.rate or DEFAULT_RATE)
        for _ in range(int((self._came - self._began) / step)):
            came, following = self._came, self._picture()
            if following is None:
                break
            self.dropped, picture = self.dropped + 1, following
            if self._came - came > step / 2:
                break
        return picture

    def _reconnect(self) -> None:
        """Raises StopIteration where it is closed meanwhile, SourceError where it takes too long."""
        self.close()
        if self._came - self._began > STEADY or self._had_no_answer():
            self._wait = self._first_wait
        quick = True
        while True:
            self._until_worth_a_try()
            self._wait = min(2 * self._wait, LONGEST_WAIT)
            self._began = time.monotonic()
            try:
                self._decoder = self._open(quick)
            except SourceError as error:
                quick = quick and not isinstance(error, Sizeless)
                if self._had_no_answer():
                    self._wait = self._first_wait
                continue
            self._pictures = self._decoder.pictures()
            return

    def _had_no_answer(self) -> bool:
        return self._came < self._began <= time.monotonic() - SILENCE

    def _until_worth_a_try(self) -> None:
        """See the top of this file."""
        began = time.monotonic()
        due = began + _shortened(self._wait)
        self._pause(_shortened(min(self._wait, ASKED)))  # a server that is ended may still accept for a moment
        closed = False
        while True:
            asked = time.monotonic()
            if self._answers is not None and asked - began < BLIND and not self._answers():
                closed = True
                self._pause(asked + _shortened(ASKED) - time.monotonic())
            elif closed:  # it answers again, or BLIND seconds have gone by
                self._wait = self._first_wait
                return
            elif due <= time.monotonic():
                return
            else:
                self._pause(due - time.monotonic())

    def _pause(self, seconds: float) -> None:
        rest = float("inf") if self._give_up is None else self._came + self._give_up - time.monotonic()
        if rest <= 0:
            raise SourceError(f"{self.name}: broke off, and gave no frame for {self._give_up:g} s")
        if self.stopping.wait(max(0.0, min(seconds, rest))):
            raise StopIteration

    def close(self) -> None:
        if self._decoder is not None:
            self._decoder.close()
            self._decoder = None
        self._pictures = iter(())


def _shortened(seconds: float) -> float:
    return seconds * random.uniform(2 / 3, 1)
