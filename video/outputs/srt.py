"""SubRip subtitles (.srt)."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from clip4str.core.output_files import check_output, write_whole

from .base import Collected, clock_milliseconds
from .subtitles import blocks

# SubRip has no escapes: FFmpeg shows "&lt;" as these four letters, VLC and browsers show "<". Look-alikes are no markup
# to any of them. Of & and { only what would begin an entity, as in "&lt;", or an override, as in "{\\an8}" and "{y:i}".
_LOOK_ALIKES = {"<": "\u2039", ">": "\u203a", "&": "\uff06", "{": "\uff5b"}
_MARKUP = re.compile(r"[<>]|&(?=#?\w+;)|\{(?=\\|\w:)")


class Srt(Collected):
    """A Sink: written at the end. What players would take for markup is written with look-alikes; JSON lines have it as
    it is. Raises UsageError where it cannot be written."""

    def __init__(self, file: Path, names: Sequence[str] = ()) -> None:
        super().__init__(names)
        self.file = file
        check_output(file, (".srt",))

    def finish(self) -> None:
        parts = [
            f"{number}\n{clock_milliseconds(block.start, ',')} --> {clock_milliseconds(block.end, ',')}\n"
            + "\n".join(plain(line) for line in block.lines)
            + "\n"
            for number, block in enumerate(blocks(self.words, self.names), 1)
        ]
        write_whole(self.file, "\n".join(parts))


def plain(text: str) -> str:
    """Text that no player takes for markup."""
    return _MARKUP.sub(lambda found: _LOOK_ALIKES[found[0]], text)
