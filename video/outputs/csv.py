"""Words as a table for spreadsheets (.csv)."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path

from clip4str.core.output_files import check_output, write_whole

from ..events import WordEnded
from .base import Collected

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
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow((*COLUMNS, *CORNERS))
        writer.writerows(self._row(word) for word in self.words)
        write_whole(self.file, out.getvalue())

    def _row(self, word: WordEnded) -> list[object]:
        times = [f"{value:.6f}" for value in (word.start, word.end, word.time)]
        corners = [f"{value:.2f}" for value in word.quad.astype(float).ravel()]
        return [
            harmless(self.name(word.source)), word.track, harmless(word.text), f"{word.confidence:.6f}", *times,
            word.reads, word.frames, harmless(word.label or ""), *corners,
        ]  # fmt: skip


def harmless(text: str) -> str:
    """What begins like a formula, and is no number, with a ' in front."""
    if text[:1] not in ("=", "+", "-", "@", "\t", "\r"):
        return text
    try:
        float(text)
    except ValueError:
        return f"'{text}"
    return text
