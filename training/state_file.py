"""The state that a run goes on from, read whole: a checkpoint of Lightning's, last.ckpt."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

from clip4str.core.errors import DataError, first_line


def load_state(path: Path) -> dict[str, Any]:
    """Its tensors stay in the file until they are used. Raises DataError, one line without the path, for a file that is
    cut, of another program, or has a byte that is not as it was written. Nothing in it is executed."""
    import torch

    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
        if damaged:
            raise DataError(f"{damaged} is damaged")
        loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        if not isinstance(loaded["clip4str_training"], dict) or not isinstance(loaded["global_step"], int):
            raise DataError("it is of another program")
        return loaded
    except Exception as error:  # torch and zipfile raise many kinds for damaged files
        raise DataError(first_line(error, 200)) from None
