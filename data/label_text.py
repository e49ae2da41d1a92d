"""A label file's text: which encoding it is in, and its lines."""

from __future__ import annotations

import codecs
from pathlib import Path
from typing import NamedTuple

from clip4str.core.errors import DataError, UsageError

MOST_BYTES = 1 << 29  # of a label file; that of nine million words has 300 MB
_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig", "UTF-8"),
    (codecs.BOM_UTF32_LE, "utf-32", "UTF-32"),  # begins as UTF-16's does
    (codecs.BOM_UTF32_BE, "utf-32", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16", "UTF-16"),
)
_ASK = "say which encoding it is, such as --encoding gb18030, big5, shift_jis, euc_kr, cp1251 or cp1252"


class Text(NamedTuple):
    """encoding: as people call it."""

    content: str
    encoding: str

    def lines(self) -> list[tuple[int, str]]:
        """(number from 1, line) of those that are not blank. Line ends are those of files alone: a label may hold
        characters that Python would break lines at."""
        ends = "\n" if "\n" in self.content else "\r"
        lines = (line.rstrip("\r") for line in self.content.split(ends))
        return [(number, line) for number, line in enumerate(lines, 1) if line.strip()]


def read_text(path: Path, encoding: str | None = None) -> Text:
    """encoding: what the user says; without it a byte order mark does, and without one it must be UTF-8.

    Raises DataError, and UsageError for an encoding that Python has not.
    """
    try:
        if path.stat().st_size > MOST_BYTES:
            raise DataError(f"{path}: more than {MOST_BYTES >> 20} MB; split it")
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error})") from None
    if not data.strip():
        raise DataError(f"{path}: the file is empty")
    codec, name = encoding, encoding or "UTF-8"
    if codec is None:
        codec, name = next(((c, n) for mark, c, n in _MARKS if data.startswith(mark)), ("utf-8", "UTF-8"))
        if codec == "utf-8" and data[:4000].count(0) > len(data[:4000]) // 4:
            raise DataError(f"{path}: looks like UTF-16 without its mark; try --encoding utf-16-le or utf-16-be")
    try:
        content = data.decode(codec)
    except LookupError:
        raise UsageError(f"--encoding {encoding}: no such encoding; try gb18030, big5, shift_jis or cp1252") from None
    except UnicodeError as error:
        place = getattr(error, "start", 0)
        line = data.count(b"\n", 0, place) + 1
        raise DataError(f"{path}: line {line} is not {name}; {_ASK}") from None
    return Text(content.removeprefix("\ufeff"), name)
