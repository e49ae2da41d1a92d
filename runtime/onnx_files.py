"""Which tensors of an ONNX file lie in other files, without the onnx package.

ONNX lets every tensor name a file to be read in its place, and runtimes have followed such names anywhere on the disk.
So onnxruntime is given none to follow: an ONNX file is looked through here, and its tensors of other files are handed
over with it (runtime/backends/ort.py). What protobuf parsers might take in different ways is refused. The format is
onnx.proto's.
"""

from __future__ import annotations

import math
import mmap
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clip4str.core.errors import BundleError, first_line

MOST_BYTES = 2**31 - 1  # protobuf has no larger messages
MOST_FIELDS = 300_000  # looked at in a file: a second. A stage of B/16 has 4,000
_MOST_NESTED = 40
_MOST_TEXT = 4096  # of a name or a location
_MOST_DIMENSIONS = 8
# message: {field number: message in it}; every way from a model to a tensor
_FIELDS: dict[str, dict[int, str]] = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "graph": {1: "node", 5: "tensor", 15: "sparse"},
    "function": {7: "node", 11: "attribute"},
    "node": {5: "attribute"},
    "attribute": {5: "tensor", 6: "graph", 10: "tensor", 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: "tensor", 2: "tensor"},
}
_INITIALISER = ("model", "graph", "tensor")
_DIMS, _TYPE, _NAME, _EXTERNAL_DATA, _DATA_LOCATION = 1, 2, 8, 13, 14  # of a tensor
_GRAPH, _INITIALISERS, _RAW, _FLOAT = 7, 5, 9, 1  # fields of a model, a graph, a tensor; a tensor's type
_VALUES = {4, 5, 6, 7, 9, 10, 11}  # of a tensor: where its values are if they are in the file
_KEY, _VALUE = 1, 2  # of an entry of its external_data
_DTYPES: dict[int, np.dtype] = {1: np.dtype("<f4"), 10: np.dtype("<f2")}  # those that bundles keep in other files


class External(NamedTuple):
    """An initialiser whose values are bytes `offset` to `offset + length` of the file called `location`."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype
    location: str
    offset: int
    length: int

    def array(self, content: bytes) -> np.ndarray:
        """Its values in that file's content, without a copy where their place allows. Raises ValueError."""
        if self.offset + self.length > len(content):
            raise ValueError(f"{self.name} ends behind the end of {self.location}")
        flat = np.frombuffer(content, self.dtype, self.length // self.dtype.itemsize, self.offset)
        return np.require(flat, requirements="A").reshape(self.shape)


def external_tensors(content: bytes | mmap.mmap, path: Path) -> list[External]:
    """An ONNX file's tensors that lie in other files.

    Raises BundleError, naming `path`: it is no protobuf message; one that parsers might take in different ways; or
    has such tensors where nobody could hand them over, that is, anywhere but among the main graph's initialisers.
    """
    if len(content) == 0:
        raise BundleError(f"{path}: the file is empty")
    try:
        walk = _Walk(content)
        found = list(walk.externals(0, len(content), ("model",)))
        for tensor in found:
            if walk.initialisers.count(tensor.name) > 1:
                raise ValueError(f"two initialisers are called {tensor.name!r}")
        return found
    except (IndexError, ValueError) as error:
        raise BundleError(f"{path}: damaged or unsafe ONNX file ({first_line(error)})") from None


def without_denormals(content: bytes, path: Path) -> bytes:
    """An ONNX file whose initialisers' float32 numbers below 2^-126 are 0, which changes no sum that float32 can tell.

    Weights that training has decayed to nothing end there, and Intel's CPUs take a hundred times as long for each. Only
    those whose values lie in the file as raw bytes; raises BundleError as `external_tensors`.
    """
    changed = bytearray(content)
    try:
        for begin, stop in _Walk(content).raw_floats():
            values = np.frombuffer(changed, "<f4", (stop - begin) // 4, begin)
            values[np.abs(values) < np.finfo(np.float32).tiny] = 0
    except (IndexError, ValueError) as error:
        raise BundleError(f"{path}: damaged or unsafe ONNX file ({first_line(error)})") from None
    return bytes(changed)


class _Field(NamedTuple):
    """A message's field: its value if it is a number; its bytes, `begin` to `stop`, if it has a length."""

    number: int
    value: int
    begin: int
    stop: int | None


class _Walk:
    """Once through a file. Every method may raise ValueError or IndexError."""

    def __init__(self, data: bytes | mmap.mmap) -> None:
        self.data, self.left = data, MOST_FIELDS
        self.initialisers: list[str] = []

    def externals(self, start: int, end: int, place: tuple[str, ...]) -> Iterator[External]:
        """place: the messages around this one, from the model on, and itself."""
        if len(place) > _MOST_NESTED:
            raise ValueError(f"nested more than {_MOST_NESTED} deep")
        if place[-1] == "tensor":
            yield from self.tensor(start, end, place)
            return
        for f in self.fields(start, end):
            inner = _FIELDS[place[-1]].get(f.number)
            if inner and f.stop is not None:
                yield from self.externals(f.begin, f.stop, (*place, inner))

    def tensor(self, start: int, end: int, place: tuple[str, ...]) -> Iterator[External]:
        dims: list[int] = []
        kind, location, values, name = 0, 0, False, ""
        entries: dict[str, str] = {}
        for number, value, begin, stop in self.fields(start, end):
            if number == _DIMS and place == _INITIALISER:
                dims += [value] if stop is None else self.numbers(begin, stop)
            elif number == _NAME and stop is not None and place == _INITIALISER:
                name = self.text(begin, stop)
            elif number == _EXTERNAL_DATA and stop is not None:
                key, said = self.entry(begin, stop)
                if key in entries:
                    raise ValueError(f"a tensor of other files has two {key}s")
                entries[key] = said
            elif stop is None and number in (_TYPE, _DATA_LOCATION):
                kind, location = (value, location) if number == _TYPE else (kind, value)
            values |= number in _VALUES
        if place == _INITIALISER:
            self.initialisers.append(name)
        if not entries and not location:
            return
        if place != _INITIALISER:
            raise ValueError(f"a tensor of another file, {entries.get('location')!r}, that is no initialiser")
        if location != 1 or values:
            raise ValueError(f"{name!r} is in this file and in another")
        yield _external(name, dims, kind, entries)

    def raw_floats(self) -> Iterator[tuple[int, int]]:
        """Where the main graph's float32 initialisers have their raw bytes: begin, stop."""
        for model in self.fields(0, len(self.data)):
            if model.number != _GRAPH or model.stop is None:
                continue
            for graph in self.fields(model.begin, model.stop):
                if graph.number != _INITIALISERS or graph.stop is None:
                    continue
                kind, raw = 0, (0, 0)
                for number, value, begin, stop in self.fields(graph.begin, graph.stop):
                    if number == _TYPE and stop is None:
                        kind = value
                    elif number == _RAW and stop is not None:
                        raw = (begin, stop)
                if kind == _FLOAT:
                    yield raw

    def entry(self, start: int, end: int) -> tuple[str, str]:
        texts = {_KEY: "", _VALUE: ""}
        for f in self.fields(start, end):
            if f.stop is not None:
                texts[f.number] = self.text(f.begin, f.stop)
        return texts[_KEY], texts[_VALUE]

    def text(self, start: int, end: int) -> str:
        if end - start > _MOST_TEXT:
            raise ValueError(f"a name of {end - start} bytes")
        return self.data[start:end].decode("utf-8")

    def numbers(self, position: int, end: int) -> list[int]:
        found = []
        while position < end:
            value, position = self.varint(position, 10)
            found.append(value)
            if len(found) > _MOST_DIMENSIONS:
                raise ValueError(f"a tensor of more than {_MOST_DIMENSIONS} dimensions")
        return found

    def fields(self, position: int, end: int) -> Iterator[_Field]:
        while position < end:
            self.left -= 1
            if self.left < 0:
                raise ValueError(f"more than {MOST_FIELDS} fields")
            tag, position = self.varint(position, 5)
            number, kind = tag >> 3, tag & 7
            if not 1 <= number < 1 << 29:  # parsers cut a tag to 32 bits, or do not
                raise ValueError(f"a field number {number}")
            value, begin, stop = 0, position, None
            if kind == 0:
                value, position = self.varint(position, 10)
            elif kind in (1, 5):
                position += 8 if kind == 1 else 4
            elif kind == 2:
                length, begin = self.varint(position, 5)
                position = stop = begin + length
            else:
                raise ValueError(f"unknown field type {kind}")
            if position > end:
                raise ValueError("a field is longer than what it is in")
            yield _Field(number, value, begin, stop)

    def varint(self, position: int, most: int) -> tuple[int, int]:
        value = 0
        for index in range(most):
            byte = self.data[position + index]
            value |= (byte & 127) << 7 * index
            if byte < 128:
                if value >= 1 << 64:
                    raise ValueError("a number of more than 64 bits")
                return value, position + index + 1
        raise ValueError(f"a number of more than {most} bytes")


def _external(name: str, dims: list[int], kind: int, entries: dict[str, str]) -> External:
    if kind not in _DTYPES:
        raise ValueError(f"{name!r}, in another file, is of type {kind}; float32 (1) and float16 (10) may be")
    length = math.prod(dims) * _DTYPES[kind].itemsize
    for key in ("offset", "length"):
        said = entries.get(key, "")
        if said and not (said.isascii() and said.isdecimal() and len(said) < 20):
            raise ValueError(f"{key} of {name!r} is {said!r}")
    if int(entries.get("length") or length) != length:
        raise ValueError(f"{name!r} has {entries['length']} bytes, its shape needs {length}")
    if not entries.get("location"):
        raise ValueError(f"{name!r} is in another file that has no name")
    return External(name, tuple(dims), _DTYPES[kind], entries["location"], int(entries.get("offset") or 0), length)
