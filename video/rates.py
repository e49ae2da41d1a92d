"""How much time there is for a frame of live sources."""

from __future__ import annotations

import statistics
from collections import deque

FASTEST = 120.0  # frames a second; what tells of more, as some cameras do, is not believed
KNOWN = 12  # steps between frames, from which they count for more than the rate that a source tells


class Rates:
    """Of the live sources that are being read.

    A camera may tell another rate than it gives, as in the dark, or none; so steps between frames of which none was
    dropped are measured. Where each is dropped before the next, what was told stands.
    """

    def __init__(self) -> None:
        self._told: dict[int, float | None] = {}
        self._steps: dict[int, deque[float]] = {}
        self._dropped: dict[int, int] = {}

    def add(self, number: int, told: float | None) -> None:
        """A source, and the frames a second that it tells."""
        self._told[number] = told if told and told <= FASTEST else None
        self._steps[number] = deque(maxlen=2 * KNOWN)

    def came(self, number: int, step: float, dropped: int) -> None:
        """A frame of it. step: seconds since the one before. dropped: frames of it so far that nobody got."""
        if dropped == self._dropped.get(number) and step >= 1 / FASTEST:
            self._steps[number].append(step)
        self._dropped[number] = dropped

    def ended(self, number: int) -> None:
        del self._told[number]

    @property
    def budget(self) -> float | None:
        """Milliseconds a frame may take: what frames last, divided among the sources. None where no rate is known."""
        rates = sum(filter(None, map(self._rate, self._told)))
        return 1000 / rates if rates else None

    def _rate(self, number: int) -> float | None:
        steps = self._steps[number]
        return 1 / statistics.median(steps) if len(steps) >= KNOWN else self._told[number]
