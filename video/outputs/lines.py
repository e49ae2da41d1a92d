"""Files that grow line by line, for those who follow them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TextIO

from clip4str.core.errors import UsageError
from clip4str.core.output_files import check_output


class Lines:
    """file: a path, or "-" for standard output; what was in it is replaced. Raises UsageError where it cannot be
    written."""

    def __init__(self, file: Path | str) -> None:
        self.file = str(file)
        self._stream: TextIO | None = None
        self._begun = False
        if self.file == "-":
            self._stream = sys.stdout
            return
        if not Path(file).exists() or Path(file).is_file() or Path(file).is_dir():
            check_output(Path(file))  # others, pipes, are written to as they are
        try:
            self._stream = Path(file).open("w", encoding="utf-8", errors="backslashreplace", newline="")  # noqa: SIM115
        except OSError as error:
            raise UsageError(f"{file}: cannot be written ({error.strerror})") from None

    @property
    def plain(self) -> bool:
        """Does it take other characters than ASCII as they are?"""
        return self._stream is None or (self._stream.encoding or "").lower().replace("-", "") == "utf8"

    def write(self, text: str) -> None:
        """Out at once. Nothing once it is closed. Raises UsageError, BrokenPipeError."""
        if self._stream is None:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
            self._begun = True
        except BrokenPipeError:
            raise
        except OSError as error:
            if not self._begun and Path(self.file).is_file():
                Path(self.file).unlink()  # nothing is in it
            raise UsageError(f"{self.file}: cannot be written ({error.strerror})") from None

    def close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None and stream is not sys.stdout:
            stream.close()
