"""Memory that lives as long as its owner, and the one stream that everything is sent to."""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from contextlib import suppress

import numpy as np

from clip4str.core.errors import BackendError

from ...cuda import CudaLayer

COPIES = "CLIP4STR_COPY_BUFFERS"  # 1: copy on an integrated GPU, too


class Stream:
    """A stream of our own. What was sent to it since synchronise() may still be to be done."""

    def __init__(self, cuda: CudaLayer) -> None:
        self.cuda, self.handle = cuda, cuda.create_stream()
        self._sent = self._done = 0

    def ticket(self) -> int:
        """For what is sent now; pass it to settle() before touching host memory that it reads or writes."""
        self._sent += 1
        return self._sent

    def synchronise(self) -> None:
        self.cuda.synchronise(self.handle)
        self._done = self._sent

    def settle(self, ticket: int) -> None:
        if ticket > self._done:
            self.synchronise()

    def copy(self, to: int, source: int, size: int) -> None:
        """From device to device."""
        self.cuda.copy(to, source, size, self.handle)

    def upload(self, to: int, array: np.ndarray) -> None:
        """Waits until it is done: the array need not outlive the call."""
        array = np.ascontiguousarray(array)
        self.cuda.copy_in(to, array.ctypes.data, array.nbytes, self.handle)
        self.synchronise()

    def download(self, array: np.ndarray, source: int) -> np.ndarray:
        """Fills the (contiguous) array, and waits until it is done."""
        self.cuda.copy_out(array.ctypes.data, source, array.nbytes, self.handle)
        self.synchronise()
        return array

    def close(self) -> None:
        """Whatever happens, wait first: what runs may use memory that is freed next."""
        with suppress(BackendError):
            self.cuda.synchronise(self.handle)
        with suppress(BackendError):
            self.cuda.destroy_stream(self.handle)


class Memory:
    """Allocations of one owner, given back together. Raises CudaOutOfMemory, CudaError."""

    def __init__(self, stream: Stream) -> None:
        self._stream, self._cuda = stream, stream.cuda
        self._frees: list[tuple[Callable[[int], None], int]] = []

    def on_device(self, size: int) -> int:
        return self._keep(self._cuda.free, self._cuda.allocate(max(size, 1)))

    def on_host(self, size: int) -> int:
        return self._keep(self._cuda.free_host, self._cuda.allocate_host(max(size, 1)))

    def _keep(self, free: Callable[[int], None], address: int) -> int:
        self._frees.append((free, address))
        return address

    def close(self) -> None:
        """Waits for what runs: it may still use some of it."""
        with suppress(BackendError):
            self._stream.synchronise()
        while self._frees:
            free, address = self._frees.pop()
            with suppress(BackendError):
                free(address)


class Scratch:
    """What engines use while they run. One block serves all: they run one after the other on one stream."""

    def __init__(self, memory: Memory) -> None:
        self._memory, self._address, self._size = memory, 0, 0

    def at_least(self, size: int) -> tuple[int, int]:
        """(address, size). A block that proves too small stays, for the graphs that were captured with it."""
        if size > self._size:
            self._address, self._size = self._memory.on_device(size), size
        return self._address, self._size


class Buffer:
    """Room for `rows` rows of a tensor at an address that never changes.

    host: its pinned twin as an array (rows, *shape), None for what stays on the device. On an integrated GPU the two
    are the same memory, so nothing is copied, unless $CLIP4STR_COPY_BUFFERS is 1: a Jetson's GPU may not cache pinned
    memory, and which costs more there, only a board can tell.
    """

    def __init__(
        self, stream: Stream, memory: Memory, shape: tuple[int, ...], dtype: np.dtype, rows: int, shared: bool
    ) -> None:
        self._stream, self.shape, self.dtype, self.rows = stream, shape, dtype, rows
        self.row_bytes = int(np.prod(shape)) * dtype.itemsize
        self.host: np.ndarray | None = None
        self._host_address, self._ticket, size = 0, 0, rows * self.row_bytes
        if shared:
            self._host_address = memory.on_host(size)
            self.host = _array_at(self._host_address, (rows, *shape), dtype)
            self.host[:] = 0  # rows that pad a batch must be indices that exist, never what was there before
        self._copied = not (shared and stream.cuda.device.integrated and os.environ.get(COPIES, "0") in ("", "0"))
        self.address = memory.on_device(size) if self._copied else stream.cuda.mapped(self._host_address)

    def write(self, values: np.ndarray) -> None:
        """Values for the first rows, (n, *shape). Waits for what still reads the rows before."""
        assert self.host is not None
        self._stream.settle(self._ticket)
        self.host[: len(values)] = values

    def values(self, rows: int) -> np.ndarray:
        """A copy of the host's first rows, once they are there."""
        assert self.host is not None
        return self.host[:rows].copy()

    def send(self, rows: int) -> None:
        """The host's rows to the device. Between this and `used` there is no synchronisation."""
        if self._copied:
            self._stream.cuda.copy_in(self.address, self._host_address, rows * self.row_bytes, self._stream.handle)

    def fetch(self, rows: int) -> None:
        """The device's rows to the host: there after synchronise()."""
        if self._copied:
            self._stream.cuda.copy_out(self._host_address, self.address, rows * self.row_bytes, self._stream.handle)

    def used(self) -> None:
        """Something that reads or writes the host's rows was sent."""
        self._ticket = self._stream.ticket()


def _array_at(address: int, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    size = int(np.prod(shape)) * dtype.itemsize
    memory = memoryview((ctypes.c_ubyte * size).from_address(address)).cast("B")
    return np.ndarray(shape, dtype, memory)
