"""The metadata of a safetensors file, read and changed without loading a tensor."""

from __future__ import annotations

import json
import shutil
import struct
from collections.abc import Mapping
from pathlib import Path

from .atomic_files import replaced
from .errors import CheckpointError

_KEY = "__metadata__"
_LARGEST_HEADER = 2**24


def read_metadata(path: Path) -> dict[str, str]:
    """Empty if the file has none. Raises CheckpointError if it is cut short or damaged."""
    header, _ = _header(path)
    return dict(header.get(_KEY, {}))


def write_metadata(source: Path, target: Path, changes: Mapping[str, str]) -> None:
    """Copies the file with `changes` to its metadata; everything else stays as it is. The copy appears whole or not at
    all; source and target may be the same. Raises CheckpointError, OSError."""
    header, begin = _header(source)
    header[_KEY] = {**header.get(_KEY, {}), **changes}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with replaced(target) as partial, source.open("rb") as file, partial.open("wb") as copy:
        file.seek(begin)
        copy.write(struct.pack("<Q", len(text)) + text)
        shutil.copyfileobj(file, copy)


def _header(path: Path) -> tuple[dict[str, dict], int]:
    """The header (tensors by name, and metadata) and the offset of the tensors' data."""
    try:
        with path.open("rb") as file:
            (size,) = struct.unpack("<Q", file.read(8))
            if size > _LARGEST_HEADER:
                raise ValueError("header too large")
            header = json.loads(file.read(size))
        ends = [int(entry["data_offsets"][1]) for name, entry in header.items() if name != _KEY]
        if not ends or path.stat().st_size != 8 + size + max(ends):
            raise ValueError("cut short")
        said = header.get(_KEY, {})
        if not isinstance(said, dict) or not all(isinstance(value, str) for value in said.values()):
            raise ValueError("its metadata are no texts")
        return header, 8 + size
    except (OSError, ValueError, ArithmeticError, struct.error, LookupError, TypeError, AttributeError,
            RecursionError) as error:  # fmt: skip
        raise CheckpointError(f"{path}: not a whole safetensors file ({error})") from None
