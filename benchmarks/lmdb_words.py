"""Word image data sets as scene text recognition keeps them: an LMDB folder with the keys `num-samples`,
`image-%09d` (an encoded image) and `label-%09d` (UTF-8), counted from 1."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from clip4str.runtime.errors import DataError


class LmdbWords:
    """One open data set: `len()` and iteration over (encoded image, label as stored). Close it, or use
    `with`.

    Raises DataError if the folder is missing or damaged, a sample is missing, or a label is not UTF-8.
    """

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        try:
            import lmdb
        except ImportError:
            raise DataError("reading data sets needs lmdb: pip install 'clip4str[bench]'") from None
        self.folder = Path(folder)
        if not (self.folder / "data.mdb").is_file():
            what = "has no data.mdb" if self.folder.is_dir() else "is not a folder"
            raise DataError(f"{self.folder}: {what}; a data set is an LMDB folder holding data.mdb")
        self._error = lmdb.Error
        try:
            # lock=False: data sets often lie on read-only disks, where no lock file can be made.
            self._environment = lmdb.open(str(self.folder), readonly=True, lock=False, readahead=False, meminit=False)
        except lmdb.Error as error:
            raise DataError(f"{self.folder}: not a readable LMDB ({error})") from None
        try:
            self._samples = self._count()
        except DataError:
            self.close()
            raise

    def _count(self) -> int:
        try:
            with self._environment.begin() as transaction:
                count = self._get(transaction, "num-samples")
            return int(count)
        except (ValueError, self._error) as error:
            raise DataError(f"{self.folder}: its num-samples cannot be read ({error})") from None

    def _get(self, transaction: Any, key: str) -> bytes:
        value = transaction.get(key.encode())
        if value is None:
            raise DataError(f"{self.folder}: has no {key}; is the copy complete?")
        return bytes(value)

    def __len__(self) -> int:
        return self._samples

    def __iter__(self) -> Iterator[tuple[bytes, str]]:
        try:
            with self._environment.begin() as transaction:
                for number in range(1, len(self) + 1):
                    image = self._get(transaction, f"image-{number:09d}")
                    label = self._get(transaction, f"label-{number:09d}")
                    try:
                        yield image, label.decode("utf-8")
                    except UnicodeDecodeError:
                        raise DataError(f"{self.folder}: label-{number:09d} is not UTF-8") from None
        except self._error as error:
            raise DataError(f"{self.folder}: damaged LMDB ({error})") from None

    def close(self) -> None:
        self._environment.close()

    def __enter__(self) -> LmdbWords:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()


def find_lmdb(root: str | os.PathLike[str]) -> list[Path]:
    """Every LMDB folder at or below root, sorted. Raises DataError if root is no folder."""
    root = Path(root)
    if not root.is_dir():
        raise DataError(f"{root}: not a folder; give one that holds LMDB data sets (folders with a data.mdb)")
    return sorted(path.parent for path in root.rglob("data.mdb"))
