"""What torch.save writes, the zip archive and the form before it, read as data: shapes first, numbers when asked for.

Not torch.load: also with weights_only it makes tensors of any size that a pickle claims, knows dozens of names that no
state_dict needs, and stops at the first dictionary or list of a class of its own.
"""

from __future__ import annotations

import struct
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import IO, Any, NamedTuple

import torch
from torch import Tensor

from clip4str.core.errors import CheckpointError

from .pickles import Damaged, Foreign, Name, read_pickle

MOST_ENTRIES = 100_000  # of an archive: one per tensor, and a few
MOST_RANK = 8
_MOST_DIRECTORY = 128 * MOST_ENTRIES  # bytes
_MAGIC, _PROTOCOL = 0x1950A86A20F9469CFC6C, 1001
_DTYPES = {
    "FloatStorage": torch.float32, "HalfStorage": torch.float16, "BFloat16Storage": torch.bfloat16,
    "DoubleStorage": torch.float64, "LongStorage": torch.int64, "IntStorage": torch.int32,
    "ShortStorage": torch.int16, "CharStorage": torch.int8, "ByteStorage": torch.uint8, "BoolStorage": torch.bool,
    "UntypedStorage": torch.uint8,
}  # fmt: skip


@dataclass(frozen=True)
class Storage:
    """Numbers that lie in the file under a key."""

    key: str
    dtype: torch.dtype
    count: int

    @property
    def bytes(self) -> int:
        return self.count * self.dtype.itemsize


@dataclass(frozen=True)
class Stored:
    """A tensor that was not read yet."""

    storage: Storage
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def dtype(self) -> torch.dtype:
        return self.storage.dtype


class _Place(NamedTuple):
    """Of bytes in the file. checksum: CRC-32, 0 where torch was told to save without."""

    begin: int
    bytes: int
    checksum: int


class TorchFile:
    """A file of torch.save. value: what was saved, a Stored in every tensor's place, pickles.Foreign in that of others'
    classes. Raises CheckpointError, UnsafeCheckpointError."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._found: dict[str, _Place] = {}
        self._read: dict[str, Tensor] = {}
        with path.open("rb") as file:
            self.value = self._archive(file) if file.read(4) == b"PK\x03\x04" else self._before_archives(file)

    def tensor(self, stored: Stored) -> Tensor:
        """Its numbers, which tensors of one storage share. Raises CheckpointError."""
        storage = stored.storage
        if self._found[storage.key].bytes != storage.bytes:
            raise CheckpointError(f"claims other numbers than it holds (storage {storage.key})")
        if storage.key not in self._read:
            self._read[storage.key] = self._numbers(self._found[storage.key])
        numbers = self._read[storage.key].view(storage.dtype)
        return numbers.as_strided(stored.shape, stored.strides, stored.offset)

    def _numbers(self, place: _Place) -> Tensor:
        numbers = torch.empty(place.bytes, dtype=torch.uint8)
        with self.path.open("rb") as file:
            file.seek(place.begin)
            if file.readinto(numbers.numpy().data) != place.bytes:
                raise CheckpointError("truncated: its weights are cut short")
        if place.checksum and zlib.crc32(numbers.numpy().data) != place.checksum:
            raise CheckpointError("damaged: the checksum of its weights is wrong; is the download complete?")
        return numbers

    def _archive(self, file: IO[bytes]) -> Any:
        entries = _entries(file)
        name = next((name for name in entries if name.endswith("/data.pkl") and name.count("/") == 1), None)
        if name is None:
            raise CheckpointError("truncated or damaged: an archive, but not one of torch (no data.pkl)")
        folder = name.removesuffix("data.pkl")
        if (order := entries.get(f"{folder}byteorder")) and _content(file, order) != b"little":
            raise CheckpointError("written by a machine of the other byte order: save it as .safetensors")

        def find(storage: Storage) -> None:
            place = entries.get(f"{folder}data/{storage.key}")
            if place is None or place.bytes != storage.bytes:
                raise CheckpointError(f"claims other numbers than it holds (storage {storage.key})")
            self._found[storage.key] = place

        file.seek(entries[name].begin)
        return read_pickle(file, _MAKERS, partial(_storage, find))

    def _before_archives(self, file: IO[bytes]) -> Any:
        """Pickles one after another (of a constant, a version, the machine, what was saved, the storages' keys), then
        the storages."""
        file.seek(0)
        claimed: dict[str, Storage] = {}
        if self._next(file, claimed) != _MAGIC or self._next(file, claimed) != _PROTOCOL:
            raise CheckpointError("a pickle, but none that torch.save wrote")
        machine = self._next(file, claimed)
        if isinstance(machine, dict) and not machine.get("little_endian", True):
            raise CheckpointError("written by a machine of the other byte order: save it as .safetensors")
        value, keys, size = self._next(file, claimed), self._next(file, claimed), self.path.stat().st_size
        for key in keys if isinstance(keys, list) else []:
            storage, header = claimed.get(key), file.read(8)
            if storage is None or len(header) < 8 or struct.unpack("<q", header)[0] != storage.count:
                raise CheckpointError("truncated or damaged: its weights are not those that it lists")
            self._found[key] = _Place(file.tell(), storage.bytes, 0)
            if file.seek(storage.bytes, 1) > size:
                raise CheckpointError("truncated: its weights are cut short")
        if claimed.keys() != self._found.keys():
            raise CheckpointError("truncated or damaged: it lists fewer weights than it has")
        return value

    def _next(self, file: IO[bytes], claimed: dict[str, Storage]) -> Any:
        return read_pickle(file, _MAKERS, partial(_storage, lambda storage: claimed.update({storage.key: storage})))


def _entries(file: IO[bytes]) -> dict[str, _Place]:
    """An archive's entries by name. Raises CheckpointError for what torch never writes: entries that are compressed,
    encrypted, of one name, or that share their bytes."""
    try:
        end = zipfile._EndRecData(file)  # type: ignore[attr-defined]  # nothing public tells before all is read
        if end is None:
            raise CheckpointError("truncated or damaged: no whole zip archive; is the download complete?")
        if end[zipfile._ECD_SIZE] > _MOST_DIRECTORY:  # type: ignore[attr-defined]
            raise CheckpointError(f"an archive of more than {MOST_ENTRIES} entries")
        with zipfile.ZipFile(file) as archive:
            infos, limit = sorted(archive.infolist(), key=lambda entry: entry.header_offset), archive.start_dir
    except (zipfile.BadZipFile, ValueError, LookupError, ArithmeticError, struct.error, NotImplementedError) as error:
        raise CheckpointError(f"truncated or damaged ({error})") from None
    if any("/code/" in entry.filename for entry in infos):
        raise CheckpointError(
            "a TorchScript archive, a program with its weights; save those where it can be trusted: "
            "torch.save(torch.jit.load(FILE, map_location='cpu').state_dict(), 'weights.pt')"
        )
    entries: dict[str, _Place] = {}
    last = 0
    for entry in infos:
        if entry.compress_type != zipfile.ZIP_STORED or entry.flag_bits & 1 or entry.compress_size != entry.file_size:
            raise CheckpointError("a compressed archive; torch writes none, so it was not read")
        if entry.header_offset < last or entry.filename in entries:
            raise CheckpointError("damaged: entries of its archive share their bytes or names")
        file.seek(entry.header_offset)
        header = file.read(30)
        if len(header) < 30 or header[:4] != b"PK\x03\x04":
            raise CheckpointError("truncated or damaged: its archive has no entry where it should")
        begin = entry.header_offset + 30 + sum(struct.unpack("<HH", header[26:]))
        last = begin + entry.file_size
        if last > limit:
            raise CheckpointError("damaged: entries of its archive share their bytes or names")
        entries[entry.filename] = _Place(begin, entry.file_size, entry.CRC)
    return entries


def _content(file: IO[bytes], place: _Place) -> bytes:
    file.seek(place.begin)
    return file.read(min(place.bytes, 64))


def _storage(claim: Callable[[Storage], None], what: Any) -> Any:
    """A persistent id of a pickle: ("storage", its type, key, place, count), or source code of a module."""
    if not isinstance(what, tuple) or len(what) < 5 or what[0] not in ("storage", b"storage"):
        return Foreign("torch.persistent", ())
    kind, key, count = what[1], what[2], what[4]
    dtype = _DTYPES.get(kind.name.rpartition(".")[2]) if isinstance(kind, Name) else None
    if dtype is None or not isinstance(key, str) or not _is_size(count):
        raise Damaged("damaged: a storage of a kind that torch has none of")
    if len(what) > 5 and what[5] is not None:
        raise Damaged("damaged: a view of a storage, which torch wrote before 0.4")
    storage = Storage(key, dtype, count)
    claim(storage)
    return storage


def _tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> Any:
    shape, strides = _sizes(shape), _sizes(strides)
    if not isinstance(storage, Storage) or not _is_size(offset) or len(shape) != len(strides):
        raise Damaged("damaged: a tensor that is none")
    count, reach = 1, offset + 1
    for size, stride in zip(shape, strides):
        count, reach = count * size, reach + (size - 1) * stride
    if count and (count > storage.count or reach > storage.count):
        raise Damaged("claims more numbers than it holds")
    return Stored(storage, offset, shape, strides)


def _tensor_of_type(storage: Any, offset: Any, shape: Any, strides: Any, _grad: Any, _hooks: Any, dtype: Any,
                    *_: Any) -> Any:  # fmt: skip
    name = dtype.name.removeprefix("torch.") if isinstance(dtype, Name) else ""
    kind = getattr(torch, name, None) if name.isidentifier() else None
    if not isinstance(storage, Storage) or not isinstance(kind, torch.dtype) or storage.bytes % kind.itemsize:
        raise Damaged("damaged: a tensor that is none")
    return _tensor(Storage(storage.key, kind, storage.bytes // kind.itemsize), offset, shape, strides)


def _subclass(function: Any, _kind: Any, args: Any, *_: Any) -> Any:
    """A tensor of a class of its own: as the tensor that it was made from."""
    maker = _MAKERS.get(function.name) if isinstance(function, Name) else None
    return maker(*args) if maker is not None else Foreign("torch.Tensor", ())


def _is_size(value: Any) -> bool:
    return type(value) is int and 0 <= value < 2**48


def _sizes(value: Any) -> tuple[int, ...]:
    if isinstance(value, Foreign) and value.name == "torch.Size" and len(value.args) == 1:
        value = value.args[0]
    if not isinstance(value, (tuple, list)) or len(value) > MOST_RANK or not all(map(_is_size, value)):
        raise Damaged("damaged: a tensor of no size")
    return tuple(value)


_MAKERS: dict[str, Callable[..., Any]] = {
    "torch._utils._rebuild_tensor": _tensor,
    "torch._utils._rebuild_tensor_v2": _tensor,
    "torch._utils._rebuild_tensor_v3": _tensor_of_type,
    "torch._utils._rebuild_parameter": lambda data, *_: data,
    "torch._utils._rebuild_parameter_with_state": lambda data, *_: data,
    "torch.nn.parameter.Parameter": lambda data, *_: data,
    "torch._tensor._rebuild_from_type_v2": _subclass,
}
