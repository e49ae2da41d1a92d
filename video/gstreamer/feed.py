"""Frames from a pipeline's thread to the reader's: one waits, and the newest takes its place."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import NamedTuple

from ..frames import Frame
from ..sources import Source


class Timing(NamedTuple):
    """Where running time lies in the stream: stream time = rate * running time + shift, in seconds."""

    rate: float = 1.0
    shift: float = 0.0


class Feed:
    """Between the two threads: the pipeline's, and the reader's, which calls `begin` for a Source that lasts until the
    next cut."""

    def __init__(self, wait: bool = False) -> None:
        self.keep_all, self.rate = wait, None  # type: bool, float | None
        self.timing = Timing()  # of the frame that the reader has
        self._overtaken = [0, 0]  # frames before the cut, and after it
        self._waiting: list[tuple[Frame, Timing] | None] = [None, None]  # likewise
        self._cut = self._busy = self._interrupted = self._shut = self._paused = False
        self._change = threading.Condition()  # guards all that precedes

    def put(self, frame: Frame, timing: Timing) -> None:
        """The next frame. Waits until the reader has done with it if all are kept, else for nothing."""
        with self._change:
            if self._interrupted or self._shut:
                return
            overtaken = self._waiting[self._cut]
            if overtaken is not None:
                self._overtaken[self._cut] += 1
                frame = replace(frame, broken=frame.broken or overtaken[0].broken)
            self._waiting[self._cut] = (frame, timing)
            self._change.notify_all()
            if self.keep_all:
                self._change.wait_for(self._settled)

    def cut(self) -> None:
        """What comes is of another stream: the source ends after what it was given."""
        with self._change:
            self._cut = True
            self._change.notify_all()

    def settle(self) -> None:
        """Returns when all that was given is read and told, or at `interrupt` and `shut`."""
        with self._change:
            self._change.wait_for(self._settled)

    def interrupt(self) -> None:
        """Drops what waits; nothing is taken, and nobody waits, until `resume`."""
        with self._change:
            self._waiting = [None, None]
            self._interrupted = True
            self._change.notify_all()

    def resume(self) -> None:
        with self._change:
            self._interrupted = False

    def pause(self, paused: bool) -> None:
        """While paused it is nobody's fault that no frame comes."""
        with self._change:
            self._paused = paused
            self._change.notify_all()

    def shut(self) -> None:
        """For good: the source ends, and `begin` gives no other."""
        with self._change:
            self._waiting = [None, None]
            self._shut = True
            self._change.notify_all()

    def begin(self) -> Fed | None:
        """Once there is a frame, a Source of it and what follows; None once the feed is shut."""
        with self._change:
            self._rest()
            self._change.wait_for(lambda: self._shut or self._first())
            return None if self._shut else Fed(self)

    @property
    def paused(self) -> bool:
        return self._paused

    @property
    def overtaken(self) -> int:
        """Frames of the present source that nobody got."""
        return self._overtaken[0]

    def _first(self) -> bool:
        """Is there a frame to begin with? A cut with nothing before it cuts nothing."""
        if self._cut and self._waiting[0] is None:
            self._pass_cut()
        return self._waiting[0] is not None

    def _pass_cut(self) -> None:
        self._cut, self._waiting, self._overtaken = False, [self._waiting[1], None], [self._overtaken[1], 0]
        self._change.notify_all()

    def _rest(self) -> None:
        self._busy = False
        self._change.notify_all()

    def _settled(self) -> bool:
        stopped = self._interrupted or self._shut
        return stopped or not (self._busy or self._cut or self._waiting[0] or self._waiting[1])

    def take(self) -> Frame | int:
        """The next frame of the present source; how many were overtaken where it ends."""
        with self._change:
            self._rest()
            self._change.wait_for(self._can_answer)
            self._busy = True
            waiting, self._waiting[0] = self._waiting[0], None
            if waiting is None:
                overtaken = self._overtaken[0]
                self._pass_cut()
                return overtaken
            frame, self.timing = waiting
            return frame

    def _can_answer(self) -> bool:
        return self._waiting[0] is not None or self._cut or self._shut

    def wait(self, timeout: float | None) -> bool:
        with self._change:
            self._rest()
            return self._change.wait_for(self._can_answer, timeout)


class Fed(Source):
    """What a feed is given until it is cut."""

    name = "pipeline"

    def __init__(self, feed: Feed) -> None:
        super().__init__()
        self._feed = feed
        self._ended: int | None = None  # how many were overtaken in all
        self.live, self.rate = not feed.keep_all, feed.rate

    @property
    def dropped(self) -> int:  # type: ignore[override]
        return self._feed.overtaken if self._ended is None else self._ended

    @property
    def paused(self) -> bool:  # type: ignore[override]
        return self._feed.paused

    def __next__(self) -> Frame:
        if self._ended is not None or self.stopping.is_set():
            raise StopIteration
        taken = self._feed.take()
        if isinstance(taken, int):
            self._ended = taken
            raise StopIteration
        return taken

    def wait(self, timeout: float | None = None) -> bool:
        return self._ended is not None or self._feed.wait(timeout)

    def close(self) -> None:
        self.stopping.set()
