"""A stand-in for kernels.loader.KernelLibrary on a FakeGpu: what reads frames runs when the stream gets there, over the
memory at the addresses that it was given. It computes the operators themselves: the reference, or the Triton kernel
in the interpreter."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch

from clip4str.kernels import loader
from clip4str.kernels.crop_resize import crop_resize
from clip4str.kernels.resize import resize
from clip4str.kernels.shared.variants import NETWORKS
from clip4str.kernels.thumbnail import thumbnail


def install(monkeypatch, gpu, error=None, implementation="reference", beside=None):
    """Puts it in the loader's place. error: opening raises it. beside: gets every launch's arguments, too."""

    class Library:
        opened: ClassVar = []

        def __init__(self, path, *, network):
            assert gpu.is_current(), "it belongs to the current context"
            if error:
                raise error
            self.network, self.closed = network, 0
            self.opened.append(self)

        def close(self):
            assert gpu.is_current()
            self.closed += 1

        def crop_resize(self, *, stream, n, height, width, normalization, out_float32, quads, out, **frame):
            assert not self.closed and gpu.is_current() and out_float32 == 1
            assert not out % 16 and not quads % 16
            gpu.called("crop_resize", (n, frame["layout"], frame["frame"]))
            if beside:
                beside("crop_resize", stream=stream, n=n, height=height, width=width, normalization=normalization,
                       out_float32=1, quads=quads, out=out, **frame)  # fmt: skip

            def run():
                corners = torch.from_numpy(area(gpu, quads, (n, 4, 2), np.float32).copy())
                planes, how = planes_at(gpu, **frame)
                made = crop_resize(planes, corners, (height, width), normalization=normalization, **how,
                                   implementation=implementation)  # fmt: skip
                area(gpu, out, made.shape, np.float32)[:] = made.numpy()

            gpu.send(stream, run, "crop_resize")

        def resize(self, *, stream, n, height, width, normalization, out_float32, pixels, pictures, out):
            assert not self.closed and gpu.is_current() and out_float32 == 1
            assert not out % 16 and not pixels % 16
            gpu.called("resize", n)
            if beside:
                beside("resize", stream=stream, n=n, height=height, width=width, normalization=normalization,
                       out_float32=1, pixels=pixels, pictures=pictures, out=out)  # fmt: skip

            def run():
                table = area(gpu, pictures, (n, 3), np.int32).copy()
                used = int((table[:, 0] + 3 * table[:, 1] * table[:, 2]).max())
                packed = torch.from_numpy(area(gpu, pixels, (used,), np.uint8).copy())
                made = resize(packed, table, (height, width), normalization=normalization,
                              implementation=implementation)  # fmt: skip
                area(gpu, out, made.shape, np.float32)[:] = made.numpy()

            gpu.send(stream, run, "resize")

        def thumbnail(self, *, stream, height, width, colour, out, **frame):
            assert not self.closed and gpu.is_current() and not out % 16
            gpu.called("thumbnail", (height, width, colour))
            if beside:
                beside("thumbnail", stream=stream, height=height, width=width, colour=colour, out=out, **frame)

            def run():
                planes, how = planes_at(gpu, **frame)
                made = thumbnail(planes, (height, width), colour=bool(colour), **how, implementation=implementation)
                area(gpu, out, made.shape, np.uint8)[:] = made.numpy()

            gpu.send(stream, run, "thumbnail")

    tiny = replace(NETWORKS["small"], name="tiny", image_size=(64, 64))
    monkeypatch.setitem(NETWORKS, "tiny", tiny)
    monkeypatch.setattr(loader, "KernelLibrary", Library)
    monkeypatch.setattr(loader, "find_library", lambda: Path("library"))
    return Library


def area(gpu, address, shape, dtype):
    size = math.prod(shape) * np.dtype(dtype).itemsize
    return gpu.view(address, size).view(dtype).reshape(shape)


def planes_at(gpu, *, layout, matrix, full_range, frame_height, frame_width, frame, stride, chroma, chroma_stride):
    """The frame as the library would find it, no byte more: and its colours."""

    def plane(address, rows, width, pitch, shape):
        memory = gpu.view(address, (rows - 1) * pitch + width)
        dense = np.stack([memory[i * pitch : i * pitch + width] for i in range(rows)])
        return torch.from_numpy(dense.reshape(shape))

    how = {"layout": layout, "matrix": matrix, "full_range": bool(full_range)}
    h, w = frame_height, frame_width
    if layout != "nv12":
        return plane(frame, h, 3 * w, stride, (h, w, 3)), how
    return (plane(frame, h, w, stride, (h, w)), plane(chroma, h // 2, w, chroma_stride, (h // 2, w))), how
