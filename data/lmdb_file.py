"""One LMDB file, read by offsets that are all checked.

The lmdb library maps a file into memory and follows what it says: a file that is cut, damaged or made to harm, or whose
disk fails, ends the process. Here pages are read one at a time, at most one a level and one value for a key, whatever
the file says. Only what word data sets use is read: the main table, keys in byte order, one value a key (LMDB 0.9's
format, lmdb.h and mdb.c of OpenLDAP).
"""

from __future__ import annotations

import os
import struct
from bisect import bisect_right
from pathlib import Path
from typing import BinaryIO

from clip4str.core.errors import DataError

LARGEST_VALUE = 1 << 26  # bytes of an encoded picture
DEEPEST = 32  # levels, as in the library
BRANCHES = 2048  # pages kept, of some hundred keys
_MAGIC, _VERSION = 0xBEEFC0DE, 1
_BRANCH, _LEAF, _OVERFLOW = 1, 2, 4
_HEADER, _NODE = 16, struct.Struct("<HHHH")
_ELSEWHERE, _NO_PLAIN_VALUE = 1, 6
_NOWHERE = 2**64 - 1
Branch = tuple[list[bytes], list[int]]  # keys but the first, and pages below


class LmdbFile:
    """`get(key)`. May be used after a fork; not pickled.

    Raises DataError, one line, where the file is missing, none of LMDB's, shorter than it says, or damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._file: BinaryIO = path.open("rb", buffering=0)
        except OSError as error:
            raise DataError(f"{path}: cannot be opened ({error.strerror or error})") from None
        try:
            self._begin()
        except BaseException:
            self._file.close()
            raise
        self._branches: dict[int, Branch] = {}
        self._last: tuple[int, bytes, tuple[int, ...]] = (0, b"", ())  # leaf: number, bytes, where its nodes begin

    def _begin(self) -> None:
        size = os.fstat(self._file.fileno()).st_size
        head = self._bytes(0, min(size, 1 << 16))
        psize = int.from_bytes(head[_HEADER + 24 : _HEADER + 28], "little")  # of the table of free pages
        if psize not in (1 << k for k in range(9, 16)) or len(head) < 2 * psize:
            raise self._wrong("no LMDB file")
        metas = []
        for start in (0, psize):
            magic, version = struct.unpack_from("<II", head, start + _HEADER)
            if magic == _MAGIC and version == _VERSION:
                # of the main table: flags, depth, pages of three kinds, entries, root; then last page and transaction
                fields = struct.unpack_from("<4xHHQQQQQQQ", head, start + _HEADER + 72)
                metas.append((fields[-1], fields))
        if not metas:
            raise self._wrong("no LMDB file of a version that is known here")
        _, (flags, _, _, _, _, _, root, last, _) = max(metas)
        if flags:
            raise self._wrong("keys in an order that no word data set has")
        self._psize, self._pages, self._root = psize, last + 1, root
        if self._pages * psize > size:
            raise DataError(f"{self.path}: is shorter than it says; is the copy complete?")

    def get(self, key: bytes) -> bytes | None:
        """The value; None where there is none. Raises DataError."""
        number = self._root
        if number == _NOWHERE:
            return None
        for _ in range(DEEPEST):
            branch = self._branches.get(number)
            if branch is None:
                last = self._last
                if last[0] == number:
                    return self._find(last[1], last[2], key)
                page, kind, offsets = self._page(number)
                if kind == _LEAF:
                    self._last = number, page, offsets
                    return self._find(page, offsets, key)
                branch = self._keep(number, page, offsets)
            number = branch[1][bisect_right(branch[0], key)]
        raise self._wrong(f"more than {DEEPEST} levels")

    def close(self) -> None:
        self._file.close()

    def _keep(self, number: int, page: bytes, offsets: tuple[int, ...]) -> Branch:
        nodes = [(_NODE.unpack_from(page, offset), offset) for offset in offsets]
        if not nodes:
            raise self._wrong(f"page {number} is empty")
        keys = [self._key(page, offset, length) for (_, _, _, length), offset in nodes[1:]]
        if len(self._branches) >= BRANCHES:
            self._branches.clear()
        branch = keys, [low | high << 16 | top << 32 for (low, high, top, _), _ in nodes]
        self._branches[number] = branch
        return branch

    def _find(self, page: bytes, offsets: tuple[int, ...], key: bytes) -> bytes | None:
        low, high = 0, len(offsets)
        while low < high:
            middle = (low + high) // 2
            offset = offsets[middle]
            size, more, flags, length = _NODE.unpack_from(page, offset)
            found = self._key(page, offset, length)
            if found == key:
                return self._value(page, offset + _NODE.size + length, size | more << 16, flags)
            low, high = (middle + 1, high) if found < key else (low, middle)
        return None

    def _value(self, page: bytes, start: int, size: int, flags: int) -> bytes:
        if size > LARGEST_VALUE or flags & _NO_PLAIN_VALUE:
            raise self._wrong(f"a value of {size} bytes" if size > LARGEST_VALUE else "a value that is none")
        if not flags & _ELSEWHERE:
            if start + size > len(page):
                raise self._wrong("a value beyond its page")
            return page[start : start + size]
        if start + 8 > len(page):
            raise self._wrong("a value beyond its page")
        first = int.from_bytes(page[start : start + 8], "little")
        if not 1 < first < self._pages or first * self._psize + _HEADER + size > self._pages * self._psize:
            raise self._wrong("a value beyond the file")
        whole = self._bytes(first * self._psize, _HEADER + size)
        if not whole[10] & _OVERFLOW:
            raise self._wrong(f"page {first} is of another kind than it should")
        return whole[_HEADER:]

    def _key(self, page: bytes, offset: int, length: int) -> bytes:
        if offset + _NODE.size + length > len(page):
            raise self._wrong("a key beyond its page")
        return page[offset + _NODE.size : offset + _NODE.size + length]

    def _page(self, number: int) -> tuple[bytes, int, tuple[int, ...]]:
        """Bytes, kind, and where its nodes begin."""
        if not 1 < number < self._pages:
            raise self._wrong(f"page {number} of {self._pages}")
        page = self._bytes(number * self._psize, self._psize)
        kind, below = struct.unpack_from("<HH", page, 10)
        kind &= 0x7F
        if kind not in (_BRANCH, _LEAF) or not _HEADER <= below <= self._psize:
            raise self._wrong(f"page {number} is of another kind than it should")
        offsets = struct.unpack_from(f"<{(below - _HEADER) // 2}H", page, _HEADER)
        if offsets and max(offsets) + _NODE.size > self._psize:
            raise self._wrong(f"page {number} has nodes beyond its end")
        return page, kind, offsets

    def _bytes(self, start: int, size: int) -> bytes:
        try:
            if hasattr(os, "pread"):
                found = os.pread(self._file.fileno(), size, start)
            else:
                self._file.seek(start)
                found = self._file.read(size)
        except OSError as error:
            raise DataError(f"{self.path}: cannot be read ({error.strerror or error})") from None
        if len(found) != size:
            raise DataError(f"{self.path}: became shorter while it was read")
        return found

    def _wrong(self, what: str) -> DataError:
        return DataError(f"{self.path}: not a readable LMDB ({what})")
