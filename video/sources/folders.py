"""Pictures as frames: a folder, a pattern, a single one."""

from __future__ import annotations

import re
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from clip4str.core.errors import ImageError, SourceError
from clip4str.runtime import IMAGE_SUFFIXES, load_image

from .base import Picture

SUFFIXES = IMAGE_SUFFIXES - {".gif"}  # which can be a video


class Pictures:
    """A Decoder. One that cannot be read is warned of, and its time passes: the one before it is shown longer."""

    def __init__(self, paths: Sequence[Path], name: str, rate: float) -> None:
        self.paths, self.name, self._step = paths, name, 1 / rate
        self.rate: float | None = rate
        self.frames: int | None = len(paths)
        self.dropped = 0

    def pictures(self) -> Iterator[Picture]:
        for number, path in enumerate(self.paths):
            try:
                pixels = np.asarray(load_image(path))
            except ImageError as error:
                if len(self.paths) == 1:
                    raise SourceError(str(error)) from None
                self.dropped += 1
                warnings.warn(str(error), stacklevel=2)
                continue
            yield Picture(pixels, number * self._step, self._step, layout="rgb")

    def close(self) -> None:
        pass


def in_folder(folder: Path, name: str) -> list[Path]:
    """A folder's pictures, 2 before 10. Raises SourceError if there are none."""
    try:
        paths = [path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and path.is_file()]
    except OSError as error:
        raise SourceError(f"{name}: cannot be read ({error.strerror})") from None
    if not paths:
        raise SourceError(f"{name}: a folder without pictures; video files are named one by one")
    return sorted(paths, key=natural)


def natural(path: Path) -> list[tuple[int, str]]:
    """Sorts numbers within names by their value."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", str(path))]
