"""One JSON object a line, as things happen. docs/video.md describes them."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

from clip4str.core.errors import UsageError
from clip4str.core.output_files import check_output

from ..events import VERSION, Event, as_json


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
        self.file = str(file)
        self._stream: TextIO | None = None
        if self.file == "-":
            self._stream = sys.stdout
        else:
            if not Path(file).exists() or Path(file).is_file() or Path(file).is_dir():
                check_output(Path(file))  # others, pipes, are written to as they are
            try:
                self._stream = Path(file).open("w", encoding="utf-8")  # noqa: SIM115
            except OSError as error:
                raise UsageError(f"{file}: cannot be written ({error.strerror})") from None
        self._line(sources(names))

    def write(self, event: Event) -> None:
        self._line(as_json(event))

    def _line(self, values: dict[str, Any]) -> None:
        if self._stream is None:
            return
        encoding = (self._stream.encoding or "").lower().replace("-", "")
        try:
            self._stream.write(line(values, ascii=encoding != "utf8") + "\n")
            self._stream.flush()
        except BrokenPipeError:
            raise
        except OSError as error:
            raise UsageError(f"{self.file}: cannot be written ({error.strerror})") from None

    def close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None and stream is not sys.stdout:
            stream.close()
