"""Pictures brought to a GPU as they are, for the compiled kernel to resize into the image engine's input."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import numpy as np

from clip4str.core.errors import BackendError

from ...cuda import CudaLayer
from ...staging import Block, block_bytes
from .crops import Crops, Staged
from .memory import Buffer, Memory, Stream


class PictureSlot:
    """A staging.Slot: a block in pinned memory, and its twin on the device, on a stream of its own. Threads enter the
    context by themselves: they do not wait for who reads."""

    def __init__(self, rows: int, size: tuple[int, int], cuda: CudaLayer, owner: Any) -> None:
        """owner: what its pixels belong to, a function that gives it. Raises CudaOutOfMemory, CudaError."""
        self.size, self._cuda, self._owner = size, cuda, owner
        with cuda.current():
            self._stream = Stream(cuda)
            self._memory = Memory(self._stream)
            try:
                count, byte = block_bytes(rows, size), np.dtype(np.uint8)
                self._buffer = Buffer(self._stream, self._memory, (), byte, count, shared=True)
            except BaseException:
                self.close()
                raise
        assert self._buffer.host is not None
        self.block = Block(self._buffer.host, rows, size)

    def send(self, count: int, normalization: str) -> None:
        with self._cuda.current():
            self._buffer.send(self.block.used)
            self._stream.synchronise()

    def pixels(self, count: int, normalization: str) -> Crops:
        """Resized when they are read."""
        at = self._buffer.address
        return Crops(self._owner(), [Staged(at + self.block.head, at, count)], self.size, normalization)

    def close(self) -> None:
        with suppress(BackendError), self._cuda.current():
            self._memory.close()
            self._stream.close()
