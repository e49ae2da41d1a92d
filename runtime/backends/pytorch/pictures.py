"""Pictures brought to a GPU as they are, and resized there, while another batch is read."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor

from clip4str.core.errors import BackendError, Clip4StrError, first_line

from ...staging import Block, block_bytes


class PictureSlot:
    """A staging.Slot: a block in pinned memory, its twin on the device, and what is made of it there.

    All is sent on a stream of its own, and waited for by the thread that sends: who reads has nothing to wait for, and
    CUDA graphs of other threads are not disturbed.
    """

    def __init__(self, rows: int, size: tuple[int, int], device: torch.device, dtype: torch.dtype) -> None:
        on_gpu = device.type == "cuda"
        count = block_bytes(rows, size)
        self.size, self.device = size, device
        self._host = torch.empty(count, dtype=torch.uint8, device="cpu", pin_memory=on_gpu)
        self._there = torch.empty(count, dtype=torch.uint8, device=device)
        self._pixels = torch.empty((rows, 3, *size), dtype=dtype, device=device)
        self._stream = torch.cuda.Stream(device) if on_gpu else None
        self.block = Block(self._host.numpy(), rows, size)

    def send(self, count: int, normalization: str) -> None:
        """As staging.Slot's. Raises BackendError."""
        try:
            self._send(count, normalization)
        except Clip4StrError:
            raise
        except Exception as error:  # of torch, CUDA, Triton, or of the compilers that Triton starts
            raise BackendError(f"resizing pictures failed in torch ({first_line(error)})") from error

    def _send(self, count: int, normalization: str) -> None:
        from clip4str.kernels.resize import resize

        stream: Any = nullcontext() if self._stream is None else torch.cuda.stream(self._stream)
        with stream, torch.inference_mode():
            used, head = self.block.used, self.block.head
            self._there[:used].copy_(self._host[:used], non_blocking=True)
            table = self._there[: 12 * self.block.rows].view(torch.int32).view(-1, 3)[:count]
            out = self._pixels[:count]
            resize(self._there[head:], table, self.size, normalization=normalization, dtype=out.dtype, out=out)
            if self._stream is not None:
                self._stream.synchronize()

    def pixels(self, count: int, normalization: str) -> Tensor:
        return self._pixels[:count]

    def close(self) -> None:
        """Memory goes with the last reference."""
