"""What an output is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Protocol

from clip4str.core.console import one_line

from ..events import Event, WordEnded


class Sink(Protocol):
    """Gets every event in its order, from one thread."""

    def write(self, event: Event) -> None:
        """Raises UsageError where the output cannot be written."""

    def close(self) -> None:
        """Everything is written out. Twice does no harm."""


class Collected:
    """A Sink of what can be written only at the end: the words, without their pictures."""

    def __init__(self, names: Sequence[str] = ()) -> None:
        self.names, self.words = list(names), list[WordEnded]()
        self._closed = False

    def write(self, event: Event) -> None:
        if isinstance(event, WordEnded):
            self.words.append(replace(event, crop=None))

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self.words.sort(key=in_order)
            self.finish()

    def finish(self) -> None:
        """Write them."""
        raise NotImplementedError

    def name(self, source: int) -> str:
        return source_name(self.names, source)


def in_order(word: WordEnded) -> tuple[float, int, int]:
    """What words are sorted by."""
    return word.start, word.source, word.track


def source_name(names: Sequence[str], source: int) -> str:
    """What a source is called on a line."""
    return one_line(names[source]) if source < len(names) else f"source {source}"


def clock(seconds: float, mark: str = ".") -> str:
    """1:02:03.456 is "01:02:03.456", to the nearest millisecond."""
    return clock_milliseconds(milliseconds(seconds), mark)


def milliseconds(seconds: float) -> int:
    return max(0, round(seconds * 1000))


def clock_milliseconds(value: int, mark: str = ".") -> str:
    rest, thousandths = divmod(value, 1000)
    return f"{rest // 3600:02d}:{rest // 60 % 60:02d}:{rest % 60:02d}{mark}{thousandths:03d}"
