"""Times of a source in which there was nothing to see: damaged frames, and one and the same picture."""

from __future__ import annotations

from collections.abc import Callable

from .events import Gap

FROZEN = 5.0  # seconds of one and the same picture until that is told


class Gaps:
    """Of one source. tell: takes each gap, once it is over. Times are the source's, in seconds."""

    def __init__(self, number: int, tell: Callable[[Gap], object]) -> None:
        self._number, self._tell = number, tell
        self._damaged_since: float | None = None
        self._same_since: float | None = None
        self._frozen = False

    def damaged(self, began: float) -> None:
        """A damaged frame."""
        self._damaged_since = began if self._damaged_since is None else self._damaged_since

    def mended(self, end: float) -> None:
        """No more of them from `end` on."""
        if self._damaged_since is not None:
            self._tell(Gap(self._number, self._damaged_since, end, "damaged"))
        self._damaged_since = None

    def same(self, began: float, end: float) -> None:
        """A frame that shows the very picture of the last one."""
        if self._same_since is None:
            self._same_since = began
        self._frozen = self._frozen or end - self._same_since >= FROZEN

    def thawed(self, end: float) -> None:
        """Another picture from `end` on."""
        if self._frozen and self._same_since is not None:
            self._tell(Gap(self._number, self._same_since, end, "frozen"))
        self._same_since, self._frozen = None, False
