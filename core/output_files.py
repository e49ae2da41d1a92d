"""The files that a report is written to: checked before the work that fills them, and written whole or not at all."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clip4str.core.atomic_files import replaced
from clip4str.core.errors import UsageError


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


def write_whole(path: Path, content: bytes | str) -> None:
    """Through a temporary name: a reader finds all of it or none. Raises UsageError if it cannot be written."""
    # a folder's name may hold bytes that no encoding has
    encoded = content if isinstance(content, bytes) else content.encode(errors="backslashreplace")
    try:
        with replaced(path, durable=False) as partial:
            partial.write_bytes(encoded)
    except OSError as error:
        raise UsageError(f"{path}: cannot be written ({error.strerror or error})") from None


def write_json(path: Path, values: Any) -> None:
    """As write_whole."""
    write_whole(path, json.dumps(values, indent=1, ensure_ascii=False) + "\n")
