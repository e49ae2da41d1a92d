"""Words as a table for spreadsheets (.csv)."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Iterable, Sequence
from pathlib import Path

from clip4str.core.output_files import check_output, write_whole

from ..events import Event, WordEnded, WordFound
from .base import Collected, source_name
from .lines import Lines

COLUMNS = ("source", "track", "text", "confidence", "start", "end", "time", "reads", "frames", "label")
CORNERS = tuple(f"{axis}{corner}" for corner in range(1, 5) for axis in "xy")


class Csv(Collected):
    """A Sink: written at the end. Words that a spreadsheet would run as a formula get a ' in front; JSON lines have
    them as they are. Raises UsageError where it cannot be written."""

    def __init__(self, file: Path, names: Sequence[str] = ()) -> None:
        super().__init__(names)
        self.file = file
        check_output(file)

    def finish(self) -> None:
        write_whole(self.file, csv_text(self.words, self.names))


class LiveCsv:
    """A Sink: the same, a row as each word ends. Live sources go on for months: no word is kept until the end, or lost
    with the process. Another one of this name begins anew."""

    def __init__(self, file: Path, names: Sequence[str] = ()) -> None:
        self.names, self._lines = list(names), Lines(file)
        self._lines.write(csv_text((), names))

    def write(self, event: Event) -> None:
        if isinstance(event, WordEnded):
            self._lines.write(_text([_row(event, source_name(self.names, event.source))]))

    def close(self) -> None:
        self._lines.close()


def csv_text(words: Iterable[WordFound | WordEnded], names: Sequence[str]) -> str:
    """A row a word. What is seen still has no end, reads and frames."""
    rows = (_row(word, source_name(names, word.source)) for word in words)
    return _text([(*COLUMNS, *CORNERS), *rows])


def _text(rows: Iterable[Sequence[object]]) -> str:
    out = io.StringIO()
    csv.writer(out, lineterminator="\n").writerows(rows)
    return out.getvalue()


def _row(word: WordFound | WordEnded, source: str) -> list[object]:
    end, reads, frames = ("", "", "") if isinstance(word, WordFound) else (f"{word.end:.6f}", word.reads, word.frames)
    corners = [f"{value:.2f}" for value in word.quad.astype(float).ravel()]
    return [
        harmless(source), word.track, harmless(word.text), f"{word.confidence:.6f}", f"{word.start:.6f}", end,
        f"{word.time:.6f}", reads, frames, harmless(word.label or ""), *corners,
    ]  # fmt: skip


def harmless(text: str) -> str:
    """What begins like a formula, and is no number, with a ' in front. Spreadsheets pass over blanks before a formula,
    and take full-width signs for the plain ones."""
    if not text.startswith(("\t", "\r", "\n")) and _sign(text) not in tuple("=+-\u2212@"):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text


def _sign(text: str) -> str:
    """The first character that shows, in its plain form."""
    shown = (each for each in text if not (each.isspace() or unicodedata.category(each) in ("Cc", "Cf")))
    return unicodedata.normalize("NFKC", next(shown, ""))
