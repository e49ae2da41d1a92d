"""When a source's frames begin and end, on a clock that never goes back."""

from __future__ import annotations

import math

from clip4str.core.errors import ImageError

from .frames import Frame

STEP = 1 / 25  # seconds that a frame is taken to last before anything is known
BACK = 1.0  # seconds: a time stamp that far back means that the source's clock was set anew
TICK = 1e-6  # seconds between frames that have the same time stamp


class Clock:
    """began, end: of the present frame. before: when the one before it ended, as was believed then."""

    def __init__(self) -> None:
        self.began = self.end = self.before = 0.0
        self._shift, self._step, self._frames, self._guessed = 0.0, STEP, 0, False

    def take(self, frame: Frame) -> str:
        """The next frame; "time stepped back" where its time did, else "". Raises ImageError for a time that is
        none."""
        if not math.isfinite(frame.time) or not (frame.duration is None or 0 <= frame.duration < math.inf):
            raise ImageError(
                f"frame {frame.index}: its time is {frame.time}, its duration {frame.duration}; no numbers"
            )
        began, self.before, what = float(frame.time) + self._shift, self.end, ""  # numpy's numbers are no JSON
        if self._frames and began <= self.began - BACK:
            self._shift += self.end - began
            began, what = self.end, "time stepped back"
        elif self._frames and began <= self.began:
            began = self.began + TICK
        elif self._frames and not frame.broken:
            self._step = began - self.began
        self._frames += 1
        self.began, self.end = began, began + (float(frame.duration or 0) or self._step)
        guessed, self._guessed = self._guessed, not frame.duration
        if guessed and not what and not frame.broken:
            self.corrected = self.before, began
        else:
            self.corrected = None
        return what

    @property
    def step(self) -> float:
        """Seconds from the last frame but one to the last."""
        return self._step

    # Where a frame does not say how long it lasts, the next one tells: (end as was believed, as it was), else None.
    corrected: tuple[float, float] | None = None
