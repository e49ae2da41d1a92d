"""SubRip subtitles (.srt)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clip4str.core.output_files import check_output, write_whole

from .base import Collected, clock_milliseconds
from .subtitles import blocks


class Srt(Collected):
    """A Sink: written at the end. Raises UsageError where it cannot be."""

    def __init__(self, file: Path, names: Sequence[str] = ()) -> None:
        super().__init__(names)
        self.file = file
        check_output(file, (".srt",))

    def finish(self) -> None:
        parts = [
            f"{number}\n{clock_milliseconds(block.start, ',')} --> {clock_milliseconds(block.end, ',')}\n"
            + "\n".join(block.lines)
            + "\n"
            for number, block in enumerate(blocks(self.words, self.names), 1)
        ]
        write_whole(self.file, "\n".join(parts))
