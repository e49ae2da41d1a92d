"""Checks of the files that a report is written to, made before the work that fills them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from clip4str.runtime import UsageError


def check_output(file: Path | None, suffixes: Sequence[str] = ()) -> None:
    """Raises UsageError if `file` cannot be written, or ends in none of the suffixes, where there are some."""
    if file is None:
        return
    if file.is_dir():
        raise UsageError(f"{file}: is a folder; name a file")
    if not file.parent.is_dir():
        raise UsageError(f"{file}: its folder does not exist")
    if suffixes and file.suffix.lower() not in suffixes:
        raise UsageError(f"{file}: its name must end in {', '.join(suffixes[:-1])} or {suffixes[-1]}")
