"""The words as a table on the terminal, at the end."""

from __future__ import annotations

import shutil
import unicodedata
from collections.abc import Callable, Sequence

from clip4str.core.console import one_line

from ..events import Event, WordEnded
from .base import Collected, clock, in_order, source_name

MOST = 50  # rows; the files have all


class Table(Collected):
    """A Sink: printed at the end. show: gets every line."""

    def __init__(self, names: Sequence[str] = (), show: Callable[[str], object] = print, most: int = MOST) -> None:
        super().__init__(names)
        self.show, self.most, self.more = show, most, 0

    def write(self, event: Event) -> None:
        """Keeps no more than will be printed, the earliest: a live source goes on for months."""
        super().write(event)
        if len(self.words) > self.most:
            self.words.sort(key=in_order)
            del self.words[self.most :]
            self.more += 1

    def finish(self) -> None:
        for line in table(self.words, self.names, shutil.get_terminal_size().columns, self.most, self.more):
            self.show(line)


def table(
    words: Sequence[WordEnded], names: Sequence[str] = (), width: int = 80, most: int = MOST, more: int = 0
) -> list[str]:
    """Lines of at most `width` columns: when a word was seen, its confidence, the crops read for it, the word, and
    where there are several sources, which. Of more than `most` words, the first ones; `more` are not even here."""
    several = len(names) > 1
    heads = ["start", "end", "sure", "reads", "word", *(["source"] if several else [])]
    rows = [
        [clock(w.start), clock(w.end), f"{w.confidence:.0%}", str(w.reads), one_line(w.text) or "-"]
        + ([source_name(names, w.source)] if several else [])
        for w in words[:most]
    ]
    if not rows:
        return ["no words found"]
    widths = [max(columns(row[i]) for row in (heads, *rows)) for i in range(len(heads))]
    room = max(8, width - sum(widths[:4]) - 2 * 4)
    if several:
        widths[5] = min(widths[5], max(6, room // 2, room - 2 - widths[4]))
        room -= widths[5] + 2
    widths[4] = min(widths[4], max(4, room))
    lines = [_row(row, widths)[:width] if row is heads else _row(row, widths) for row in (heads, *rows)]
    more += max(0, len(words) - most)
    if more:
        lines.append(f"... and {more} more"[:width])
    return lines


def _row(cells: Sequence[str], widths: Sequence[int]) -> str:
    padded = [fitted(cell, width, right=i in (2, 3)) for i, (cell, width) in enumerate(zip(cells, widths))]
    return "  ".join(padded).rstrip()


def fitted(text: str, width: int, right: bool = False) -> str:
    """Padded or cut to so many columns of a terminal."""
    if columns(text) > width:
        while columns(text) > width - 1:
            text = text[:-1]
        text += "…"
    space = " " * (width - columns(text))
    return space + text if right else text + space


def columns(text: str) -> int:
    """That a terminal needs: two for wide characters, none for accents that combine."""
    return sum(0 if unicodedata.combining(c) else 2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
