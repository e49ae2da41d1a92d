"""How much time there is for a frame of live sources."""

from __future__ import annotations

from collections import deque

FASTEST = 120.0  # frames a second; what tells of more, as some cameras do, is not believed
KNOWN = 12  # steps between frames, from which they count for more than the rate that a source tells
STOOD = 12  # times as long as its frames usually take, after which a source has stood still in between


class Rates:
    """Of the live sources that are being read.

    A camera may tell another rate than it gives, as in the dark, or none, and its time stamps may be made up. So it is
    counted how many frames come in the time that they come in, those that are dropped with them.
    """

    def __init__(self) -> None:
        self._told: dict[int, float | None] = {}
        self._came: dict[int, deque[tuple[float, int]]] = {}  # of the last frames: when, and how many were dropped

    def add(self, number: int, told: float | None) -> None:
        """A source, and the frames a second that it tells."""
        self._told[number] = told if told and told <= FASTEST else None
        self._came[number] = deque(maxlen=2 * KNOWN + 1)

    def came(self, number: int, when: float, dropped: int, broken: bool = False) -> None:
        """A frame of it. when: seconds, on a clock of its own. dropped: frames of it so far that nobody got. broken:
        it does not follow the one before."""
        before = self._came[number]
        rate = self._measured(number)
        if broken or (rate and (when - before[-1][0]) * rate > STOOD * (1 + dropped - before[-1][1])):
            before.clear()
        before.append((when, dropped))

    def ended(self, number: int) -> None:
        del self._told[number]

    @property
    def budget(self) -> float | None:
        """Milliseconds a frame may take: what frames last, divided among the sources. None where no rate is known."""
        rates = sum(self._measured(number) or told or 0.0 for number, told in self._told.items())
        return 1000 / rates if rates else None

    def _measured(self, number: int) -> float | None:
        came = self._came[number]
        if len(came) <= KNOWN:
            return None
        (first, lost), (last, lost_by_now) = came[0], came[-1]
        frames, seconds = len(came) - 1 + lost_by_now - lost, last - first
        return frames / seconds if seconds * FASTEST >= frames else None
