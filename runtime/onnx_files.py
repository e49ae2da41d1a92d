"""Which other files an ONNX file reads its weights from, without the onnx package.

ONNX lets every tensor name a file to be read in its place. Older releases of onnxruntime follow such names anywhere
on the disk, so they are looked up before onnxruntime sees the file. The format is onnx.proto's.
"""

from __future__ import annotations

import mmap
from collections.abc import Iterator
from pathlib import Path

from clip4str.core.errors import BundleError

_MOST_NESTED = 40
# message: {field number: message in it}; every way from a model to a tensor
_FIELDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
    "tensor": {13: "external"},
}
_KEY, _VALUE = 1, 2  # of an external entry


def external_files(path: Path) -> set[str]:
    """The locations that tensors of an ONNX file name. Raises BundleError if the file is no protobuf message."""
    if path.stat().st_size == 0:
        raise BundleError(f"{path}: the file is empty")
    with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
        try:
            return set(_locations(data, 0, len(data), "model", 0))
        except (IndexError, ValueError) as error:
            raise BundleError(f"{path}: not an ONNX file ({error})") from None


def _locations(data: mmap.mmap, start: int, end: int, message: str, depth: int) -> Iterator[str]:
    if depth > _MOST_NESTED:
        raise ValueError(f"nested more than {_MOST_NESTED} deep")
    for number, begin, stop in _fields(data, start, end):
        inner = _FIELDS[message].get(number)
        if inner == "external":
            entry = {n: data[b:s] for n, b, s in _fields(data, begin, stop)}
            if entry.get(_KEY) == b"location":
                yield entry.get(_VALUE, b"").decode("utf-8", "backslashreplace")
        elif inner:
            yield from _locations(data, begin, stop, inner, depth + 1)


def _fields(data: mmap.mmap, position: int, end: int) -> Iterator[tuple[int, int, int]]:
    """(field number, start, end) of a message's length-delimited fields; numbers are passed over."""
    while position < end:
        tag, position = _varint(data, position)
        kind = tag & 7
        if kind == 0:
            _, position = _varint(data, position)
        elif kind in (1, 5):
            position += 8 if kind == 1 else 4
        elif kind == 2:
            length, position = _varint(data, position)
            if position + length > end:
                raise ValueError("a field is longer than the file")
            yield tag >> 3, position, position + length
            position += length
        else:
            raise ValueError(f"unknown field type {kind}")


def _varint(data: mmap.mmap, position: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        byte = data[position]
        position += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, position
    raise ValueError("a number of more than ten bytes")
