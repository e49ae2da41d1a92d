"""Weights to hand over, with the number of words they have seen in the file's own metadata."""

from __future__ import annotations

import json
import shutil
import struct
from pathlib import Path
from typing import Any

from clip4str.runtime.atomic_files import replaced
from clip4str.runtime.errors import DataError

KEY = "words_seen"
_LARGEST_HEADER = 2**24


def read_header(path: Path) -> tuple[dict[str, Any], int]:
    """The header of a safetensors file, and where its tensors begin. Raises DataError for a cut or damaged file."""
    try:
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            if size > _LARGEST_HEADER:
                raise ValueError("header too large")
            header = json.loads(file.read(size))
            ends = [int(entry["data_offsets"][1]) for name, entry in header.items() if name != "__metadata__"]
        if not ends or path.stat().st_size != 8 + size + max(ends):
            raise ValueError("cut short")
        return header, 8 + size
    except (OSError, ValueError, struct.error, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise DataError(f"{path}: not a whole safetensors file ({error})") from None


def words_seen(path: Path) -> int | None:
    """None where the file does not say. Raises DataError for a cut or damaged file."""
    metadata = read_header(path)[0].get("__metadata__")
    said = metadata.get(KEY) if isinstance(metadata, dict) else None
    return int(said) if isinstance(said, str) and said.isdecimal() and len(said) < 16 else None


def write_weights(source: Path, target: Path, words: int) -> None:
    """A copy that says how many words it has seen; the tensors' bytes stay as they are. Raises DataError, OSError."""
    header, begin = read_header(source)
    header["__metadata__"] = {**header.get("__metadata__", {}), KEY: str(words)}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with replaced(target) as partial, source.open("rb") as file, partial.open("wb") as copy:
        file.seek(begin)
        copy.write(struct.pack("<Q", len(text)) + text)
        shutil.copyfileobj(file, copy)
