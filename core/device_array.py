"""Arrays on a GPU as plain numbers: what is known of one without touching it, and how others are shown one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from .errors import ImageError

FROM = "DLPack or __cuda_array_interface__"


class DeviceArray:
    """Memory on a GPU as an array. For decoders that give an address: `DeviceArray(address, (1080, 1920), (2048, 1))`.

    shape, strides: of each dimension its length, and the bytes from one to the next, None for dense. dtype: a name such
    as "uint8". stream: a CUDA stream whose work the contents wait for, None where they are there. owner: is kept alive.
    Cutting by rows shares the memory.
    """

    def __init__(
        self, address: int, shape: Sequence[int], strides: Sequence[int] | None = None, dtype: str = "uint8",
        *, stream: int | None = None, owner: Any = None,
    ) -> None:  # fmt: skip
        self.address, self.shape, self.dtype, self.stream, self.owner = int(address), tuple(shape), dtype, stream, owner
        self.strides = dense(self.shape, self.itemsize) if strides is None else tuple(strides)
        if len(self.strides) != len(self.shape) or min(self.shape, default=0) < 0:
            raise ImageError(f"an array on the GPU has a stride for each length, not {self.shape} and {self.strides}")

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> DeviceArray:
        start, stop, step = rows.indices(len(self))
        if step != 1:
            raise ImageError("arrays on the GPU are cut by whole runs of rows only")
        return self.viewed((max(0, stop - start), *self.shape[1:]), self.strides, start * self.strides[0])

    def viewed(self, shape: Sequence[int], strides: Sequence[int], offset: int = 0) -> DeviceArray:
        """The same memory in another shape; offset in bytes."""
        return DeviceArray(self.address + offset, shape, strides, self.dtype, stream=self.stream, owner=self)

    @property
    def itemsize(self) -> int:
        try:
            return np.dtype(self.dtype).itemsize
        except TypeError:  # a type that only its maker knows
            return 1

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def row_bytes(self) -> int:
        """Of what one index of the first dimension holds, if dense."""
        return math.prod(self.shape[1:]) * self.itemsize

    @property
    def rows_are_dense(self) -> bool:
        wanted = dense(self.shape[1:], self.itemsize)
        return all(a == b or n == 1 for a, b, n in zip(self.strides[1:], wanted, self.shape[1:]))

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape, "typestr": np.dtype(self.dtype).str, "data": (self.address, False),
            "strides": self.strides, "stream": self.stream, "version": 3,
        }  # fmt: skip


def dense(shape: Sequence[int], itemsize: int) -> tuple[int, ...]:
    """Strides in bytes of an array without gaps."""
    return tuple(itemsize * math.prod(shape[i + 1 :]) for i in range(len(shape)))


def is_on_device(value: Any) -> bool:
    """Is it an array on a GPU, by what it says of itself? Also a pair with one."""
    if isinstance(value, (tuple, list)):
        return any(is_on_device(part) for part in value)
    if isinstance(value, (np.ndarray, DeviceArray)):
        return isinstance(value, DeviceArray)
    if hasattr(value, "__dlpack_device__"):
        return int(value.__dlpack_device__()[0]) != 1
    try:
        return hasattr(value, "__cuda_array_interface__")
    except Exception:  # a tensor on the host may raise something else than AttributeError
        return False


def shape_of(value: Any) -> tuple[int, ...]:
    """Of an array on the host or a GPU. Raises ImageError for what tells none."""
    shape = getattr(value, "shape", None)
    if shape is None and hasattr(value, "__cuda_array_interface__"):
        shape = value.__cuda_array_interface__.get("shape")
    try:
        return tuple(int(n) for n in shape)  # type: ignore[union-attr]
    except TypeError:
        raise ImageError(f"a {type(value).__name__} tells no shape: expected an array, {FROM}") from None


def dtype_of(value: Any) -> str:
    """Name of an array's type ("uint8"); "" where it does not tell before it is read."""
    dtype = getattr(value, "dtype", None)
    if dtype is None and hasattr(value, "__cuda_array_interface__"):
        dtype = value.__cuda_array_interface__.get("typestr")
    name = str(dtype or "").rpartition(".")[2]  # torch.uint8
    try:
        return np.dtype(name).name if name else ""
    except TypeError:
        return name[:20]
