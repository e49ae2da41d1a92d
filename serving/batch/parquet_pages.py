"""A Parquet file as Arrow reads it, with the header of each page looked at before Arrow has it.

Arrow believes a page's header: it makes room for as many bytes as that says, and unpacks until they are there.
"""

from __future__ import annotations

import io
from typing import Any, BinaryIO

LONGEST_HEADER = 1 << 24  # bytes, which is also Arrow's limit
_HEADER = 1 << 14  # read of one first
_SLACK = 100  # bytes by which old writers' totals are too small
_DEEPEST = 8
_UNPACKED, _PACKED, _DICTIONARY, _VALUES = 2, 3, 7, 1  # numbers of fields


class PageError(Exception):
    """Rows of a group cannot be read."""


class Pages(io.RawIOBase):
    """For reading alone."""

    def __init__(self, file: BinaryIO) -> None:
        super().__init__()
        self._file, self._chunks = file, list[list[int]]()

    def watch(self, columns: list[Any], rows: int) -> None:
        """What is read from now on are these columns of a row group (metadata)."""
        self._chunks = []
        for column in columns:
            first = column.data_page_offset
            if column.has_dictionary_page and 0 < column.dictionary_page_offset < first:
                first = column.dictionary_page_offset
            stop = first + column.total_compressed_size
            self._chunks.append([first, stop, column.total_uncompressed_size + _SLACK, rows + _SLACK])

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def read(self, size: int = -1) -> bytes:
        """Raises PageError where the header of a page that begins here cannot be true."""
        start = self._file.tell()
        content = self._file.read(size)
        end = start + len(content)
        for chunk in self._chunks:
            while chunk[0] < min(end, chunk[1]):
                first, stop, most, chunk[3] = *chunk[:3], chunk[3] - 1
                if chunk[3] < 0:
                    raise PageError("more pages than rows")
                chunk[0] += self._length(first, stop, most, content, first - start)
        self._file.seek(end)
        return content

    def _length(self, first: int, stop: int, most: int, content: bytes, at: int) -> int:
        """Of the page at `first`, which begins at content[at], where that is not before it."""
        header, length = self._header(first, stop, content, at)
        unpacked, packed = header.get(_UNPACKED, -1), header.get(_PACKED, -1)
        values = header.get(_DICTIONARY, {}).get(_VALUES, 0) if isinstance(header.get(_DICTIONARY), dict) else 0
        if not (0 <= packed <= stop + _SLACK - first - length and 0 <= unpacked <= most and 0 <= values <= unpacked):
            said = f"{unpacked:,} bytes in {packed:,}, {values:,} values"
            raise PageError(f"a page that says {said}, of a column of {most - _SLACK:,} bytes")
        return length + int(packed)

    def _header(self, first: int, stop: int, content: bytes, at: int) -> tuple[dict[int, Any], int]:
        """Fields, and how long it is."""
        size = _HEADER
        while True:
            try:
                if at >= 0:
                    fields, end = _struct(content, at, _DEEPEST)
                    return fields, end - at
            except IndexError:  # cut off
                if size > 4 * LONGEST_HEADER or (at == 0 and len(content) >= stop - first):
                    raise PageError("a page's header is cut off, or too long") from None
            self._file.seek(first)
            content, at, size = self._file.read(min(size, stop - first)), 0, 4 * size


def _struct(data: bytes, at: int, deeper: int) -> tuple[dict[int, Any], int]:
    """Numbers and structs by field, and where it ends: Thrift's compact form. Raises IndexError, PageError."""
    if not deeper:
        raise PageError("a page's header is no header")
    fields, number = dict[int, Any](), 0
    while head := data[at]:
        at += 1
        if head >> 4:
            number += head >> 4
        else:
            number, at = _integer(data, at)
        fields[number], at = _value(data, at, head & 15, deeper)
    return fields, at + 1


def _value(data: bytes, at: int, kind: int, deeper: int) -> tuple[Any, int]:
    if kind in (1, 2):  # true, false
        return None, at
    if kind == 3:
        return None, at + 1
    if kind in (4, 5, 6):
        return _integer(data, at)
    if kind == 7:
        return None, at + 8
    if kind == 8:  # bytes: a smallest or largest value
        length, at = _varint(data, at)
        return None, at + length
    if kind == 12:
        return _struct(data, at, deeper - 1)
    raise PageError("a page's header is no header")  # Parquet's have no lists, sets and maps


def _integer(data: bytes, at: int) -> tuple[int, int]:
    found, at = _varint(data, at)
    return (found >> 1) ^ -(found & 1), at


def _varint(data: bytes, at: int) -> tuple[int, int]:
    found = 0
    for shift in range(0, 70, 7):
        byte = data[at]
        found, at = found | (byte & 127) << shift, at + 1
        if byte < 128:
            return found, at
    raise PageError("a page's header is no header")
