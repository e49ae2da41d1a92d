"""The frames since the last search, in which its words may be found to have begun."""

from __future__ import annotations

from collections import deque

from .flow import Small

Seen = tuple[Small, float]  # a frame, and when it began


class Recent:
    """longest: frames that are kept. The one that is searched meanwhile is kept besides."""

    def __init__(self, longest: int) -> None:
        self._frames: deque[Seen] = deque(maxlen=longest)
        self._asked: Seen | None = None

    def add(self, frame: Small, began: float) -> None:
        self._frames.append((frame, began))

    def ask(self, frame: Small, began: float) -> None:
        """A search of this frame is under way."""
        self._asked = frame, began

    def take(self) -> list[Seen]:
        """The search is over: the frames since, the newest first, and no more of them from now on."""
        found = list(self._frames)[::-1]
        if self._asked is not None and (not found or self._asked[1] < found[-1][1]):
            found.append(self._asked)  # the search took longer than frames are kept
        self.forget()
        return found

    def forget(self) -> None:
        """They are of another scene."""
        self._frames.clear()
        self._asked = None
