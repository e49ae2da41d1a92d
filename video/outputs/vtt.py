"""WebVTT subtitles (.vtt), for browsers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clip4str.core.output_files import check_output, write_whole

from .base import Collected, clock_milliseconds
from .subtitles import blocks


class Vtt(Collected):
    """A Sink: written at the end. Raises UsageError where it cannot be."""

    def __init__(self, file: Path, names: Sequence[str] = ()) -> None:
        super().__init__(names)
        self.file = file
        check_output(file, (".vtt",))

    def finish(self) -> None:
        parts = ["WEBVTT\n"]
        for block in blocks(self.words, self.names):
            lines = "\n".join(escaped(line) for line in block.lines)
            parts.append(f"{clock_milliseconds(block.start)} --> {clock_milliseconds(block.end)}\n{lines}\n")
        write_whole(self.file, "\n".join(parts))


def escaped(text: str) -> str:
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
