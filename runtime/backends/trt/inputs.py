"""Pixels from wherever they are: numpy arrays, and what other libraries keep on the GPU, not copied where it fits."""

from __future__ import annotations

from typing import Any

import numpy as np

from clip4str.core.device_array import DeviceArray
from clip4str.core.errors import ImageError

from ...cuda.arrays import array_of
from ..contract import checked
from .memory import Stream
from .rows import copy_runs

ALIGNMENT = 256  # of the addresses that TensorRT takes


class DevicePixels:
    """Pixels (N, 3, H, W) float32 on our GPU, images dense, `stride` bytes from one to the next. May be cut by rows."""

    dtype = np.dtype(np.float32)

    def __init__(self, array: DeviceArray) -> None:
        self.array, self.shape, self.address = array, array.shape, array.address
        self.row_bytes = array.row_bytes
        # of one image, or none, it does not matter what the array says
        self.stride = array.strides[0] if len(array) > 1 and all(array.shape) else self.row_bytes

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> DevicePixels:
        return DevicePixels(self.array[rows])

    def row(self, stream: Stream, number: int) -> np.ndarray:
        """One image, (3, H, W), on the host."""
        return stream.download(np.empty(self.shape[1:], self.dtype), self.address + number * self.stride)

    def copy(self, stream: Stream, to: int) -> None:
        """All of them, next to each other, to an address of ours."""
        pairs = [(to + i * self.row_bytes, self.address + i * self.stride) for i in range(len(self))]
        copy_runs(stream, pairs, self.row_bytes)

    @property
    def usable_in_place(self) -> bool:
        return self.stride == self.row_bytes and self.address % ALIGNMENT == 0


def accept_pixels(pixels: Any, size: tuple[int, int], stream: Stream) -> np.ndarray | DevicePixels:
    """Normalised pixels (N, 3, H, W) float32 of any kind that cuda.arrays takes, sharing their memory. size: (height,
    width). Raises ImageError for anything else."""
    wanted = f"expected float32 (N, 3, {size[0]}, {size[1]})"
    found = array_of("pixels are", pixels, stream.cuda, stream.handle, wanted)
    if len(found.shape) != 4 or tuple(found.shape[1:]) != (3, *size) or found.dtype != "float32":
        raise ImageError(f"pixels are {found.dtype} {tuple(found.shape)}, {wanted}")
    if isinstance(found, np.ndarray):
        return checked(found)
    how = f"pixels are a {type(pixels).__name__} that cannot be read"
    if all(found.shape) and not found.rows_are_dense:
        raise ImageError(f"{how} (its images are not contiguous: (3, H, W) in one piece each; make it contiguous)")
    if len(found) > 1 and found.strides[0] < 0:
        raise ImageError(f"{how} (its images are in reverse order in memory; make it contiguous)")
    return DevicePixels(found)
