"""One JSON object a line, as things happen. docs/video.md describes them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..events import VERSION, Event, as_json
from .lines import Lines


def sources(names: Sequence[str]) -> dict[str, Any]:
    """What comes before all events: whose numbers are whose."""
    return {"event": "sources", "version": VERSION, "names": list(names)}


def line(values: dict[str, Any], ascii: bool = False) -> str:
    """One JSON object without its line's end. ascii: all other characters escaped."""
    # a file's name may hold bytes that no encoding has; "allow_nan" would write what is no JSON
    text = json.dumps(values, ensure_ascii=ascii, allow_nan=False)
    return text.encode(errors="backslashreplace").decode()


class Jsonl:
    """A Sink. file: a path, or "-" for standard output; every line is written out at once, for those who follow it.

    The first line names the sources, which the others number. Raises UsageError where the file cannot be written.
    """

    def __init__(self, file: Path | str, names: Sequence[str] = ()) -> None:
        self._lines = Lines(file)
        self._line(sources(names))

    def write(self, event: Event) -> None:
        self._line(as_json(event))

    def _line(self, values: dict[str, Any]) -> None:
        self._lines.write(line(values, ascii=not self._lines.plain) + "\n")

    def close(self) -> None:
        self._lines.close()
