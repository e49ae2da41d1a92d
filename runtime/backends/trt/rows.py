"""Keys and values that stay on the GPU, as the driver hands them from stage to stage."""

from __future__ import annotations

import gc
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from clip4str.core.errors import BackendError

from .memory import Memory, Stream


class BatchOutput:
    """Keys and values of a batch in an engine's own output buffer: n rows, until the next batch overwrites them."""

    def __init__(self, owner: Any, name: str, n: int, generation: int) -> None:
        self.owner, self.name, self.n, self.generation = owner, name, n, generation

    def __len__(self) -> int:
        return self.n

    def numpy(self) -> np.ndarray:
        """A copy on the host. Raises BackendError if another batch has been there since."""
        return self.owner.download(self)


class Slots:
    """Room for one row each, handed out and taken back when the row is let go of. Grows if all are in use.

    Rows are let go of by whichever thread drops the last reference: that does no more than put the address back. What
    is written there next runs on the same stream, so after all that still reads it.
    """

    def __init__(self, stream: Stream, memory: Memory, shape: tuple[int, ...], dtype: np.dtype, count: int) -> None:
        self._stream, self._memory, self.shape, self.dtype = stream, memory, shape, dtype
        self.row_bytes = int(np.prod(shape)) * dtype.itemsize
        self._free: deque[int] = deque()
        self.count = 0
        self._grow(count)

    def take(self, n: int) -> list[Row]:
        """n rows, next to each other where that is possible. Raises CudaOutOfMemory."""
        if len(self._free) < n:
            gc.collect()  # rows that the traceback of an error still holds
        if len(self._free) < n:
            self._grow(max(n, self.count // 4))
        return [Row(self, self._free.popleft()) for _ in range(n)]

    def give_back(self, address: int) -> None:
        self._free.append(address)

    @property
    def free(self) -> int:
        return len(self._free)

    def read(self, address: int) -> np.ndarray:
        return self._stream.download(np.empty(self.shape, self.dtype), address)

    def _grow(self, count: int) -> None:
        first = self._memory.on_device(count * self.row_bytes)
        self._free.extend(first + i * self.row_bytes for i in range(count))
        self.count += count


class Row:
    """One caption's keys and values, in a slot that is its own as long as this object lives."""

    __slots__ = ("__weakref__", "address", "slots")

    def __init__(self, slots: Slots, address: int) -> None:
        self.slots, self.address = slots, address

    def __del__(self) -> None:
        self.slots.give_back(self.address)


class Rows:
    """A batch put together of rows, in the driver's eyes an array. Nothing is copied before a stage reads it."""

    def __init__(self, owner: Any, rows: Sequence[Any]) -> None:
        self.owner, self.rows = owner, rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Any:
        return self.rows[index]

    def numpy(self) -> np.ndarray:
        return self.owner.download(self)

    def on_host(self) -> np.ndarray:
        """(N, ...) of every row; to be called with the context current."""
        return np.stack([_on_host(row) for row in self.rows])


class Gathered:
    """Captions' rows, copied together to where the cross stage reads them."""

    def __init__(self) -> None:
        self._there: Callable[[], Rows | None] = lambda: None  # those that lie there, a weak reference

    def forget(self) -> None:
        """They are not there any more."""
        self._there = lambda: None

    def put(self, text: Rows, buffer: Any, slots: Slots | None, stream: Stream) -> None:
        """Copies them into the buffer, unless they are there still. slots: ours, whose rows are on the device."""
        if self._there() is text:
            return
        self.forget()
        pairs = []
        for i, row in enumerate(text.rows):
            to = buffer.address + i * buffer.row_bytes
            if isinstance(row, Row) and row.slots is slots:
                pairs.append((to, row.address))
            else:  # an array, or another recogniser's
                stream.upload(to, np.asarray(_on_host(row), buffer.dtype))
        copy_runs(stream, pairs, buffer.row_bytes)
        self._there = weakref.ref(text)


def _on_host(row: Any) -> Any:
    return row.slots.read(row.address) if isinstance(row, Row) else row


def copy_runs(stream: Stream, pairs: Sequence[tuple[int, int]], size: int) -> None:
    """Copies of `size` bytes, (to, source) each; neighbours at both ends go as one."""
    start = 0
    for end in range(1, len(pairs) + 1):
        to, source = pairs[start]
        if end < len(pairs) and pairs[end] == (to + (end - start) * size, source + (end - start) * size):
            continue
        stream.copy(to, source, (end - start) * size)
        start = end


def check_current(held: BatchOutput, owner: Any, generation: int) -> None:
    """Raises BackendError for keys and values that are not in the buffers any more."""
    if held.owner is not owner:
        raise BackendError(f"{held.name} is of another recogniser; pass it as an array: .numpy()")
    if held.generation != generation:
        raise BackendError(f"{held.name} is of an earlier batch, whose memory is in use again; call image() once more")
