"""Word image data sets as scene text recognition keeps them: LMDB folders, read without torch and without lmdb.

The keys are `num-samples`, `image-%09d` (an encoded image) and `label-%09d` (UTF-8), counted from 1.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clip4str.core.errors import DataError
from clip4str.data.lmdb_file import LmdbFile

_MOST = 999_999_999  # nine digits number a sample


class LmdbWords:
    """One data set: `len()`, iteration over (encoded image, label as stored), and samples by number.

    It can be pickled and used after a fork. Raises DataError if the folder is missing or damaged, a sample is missing,
    or a label is not UTF-8; nothing that a file holds does worse, see lmdb_file.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder)
        self._place = self.folder.resolve()  # the working folder may change before it is read again
        self._file: LmdbFile | None = None
        if not (self.folder / "data.mdb").is_file():
            what = "has no data.mdb" if self.folder.is_dir() else "is not a folder"
            raise DataError(f"{self.folder}: {what}; a data set is an LMDB folder holding data.mdb")
        stored = self._get("num-samples")
        try:
            self._samples = int(stored)
        except ValueError:
            self._samples = -1
        if not 0 <= self._samples <= _MOST:
            raise DataError(f"{self.folder}: its num-samples is {stored[:40]!r}, not a number from 0 to {_MOST}")

    def __len__(self) -> int:
        return self._samples

    def __iter__(self) -> Iterator[tuple[bytes, str]]:
        return ((self.image(number), self.label(number)) for number in range(1, len(self) + 1))

    def image(self, number: int) -> bytes:
        """The encoded image of sample `number`, 1 to len()."""
        return self._get(f"image-{number:09d}")

    def label(self, number: int, errors: str = "strict") -> str:
        """The label of sample `number`. errors: as in bytes.decode."""
        try:
            return self._get(f"label-{number:09d}").decode("utf-8", errors)
        except UnicodeDecodeError:
            raise DataError(f"{self.folder}: label-{number:09d} is not UTF-8") from None

    def _get(self, key: str) -> bytes:
        if self._file is None:
            self._file = LmdbFile(self._place / "data.mdb")
        value = self._file.get(key.encode())
        if value is None:
            raise DataError(f"{self.folder}: has no {key}; is the copy complete?")
        return value

    def close(self) -> None:
        """Close the file. Reading on opens it anew."""
        if self._file is not None:
            self._file.close()
            self._file = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_file": None}

    def __enter__(self) -> LmdbWords:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def fraction(content: bytes) -> float:
    """Of a picture's bytes, a number from 0 to 1, evenly spread: chooses what is held out, copies alike."""
    return int.from_bytes(hashlib.sha256(content).digest()[:6], "big") / 2**48


def find_lmdb(root: str | os.PathLike[str]) -> list[Path]:
    """Every LMDB folder at or below root, sorted; links are followed, each folder is taken once, hidden ones never.

    Raises DataError if root is no folder or there is none.
    """
    root = Path(root)
    if not root.is_dir():
        what = "is not a folder" if root.exists() else "does not exist"
        raise DataError(f"{root}: {what}; give a folder that holds LMDB data sets (folders with a data.mdb)")
    found, seen = [], set()
    for path, folders, files in os.walk(root, followlinks=True):
        place = os.path.realpath(path)
        folders[:] = () if place in seen else sorted(name for name in folders if not name.startswith("."))
        if "data.mdb" in files and place not in seen:
            found.append(Path(path))
        seen.add(place)
    if not found:
        raise DataError(f"{root}: no LMDB data set (a folder with data.mdb) in it or below")
    return found
