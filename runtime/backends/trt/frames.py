"""What a backend does with video frames: on the GPU by the compiled kernels, wherever the frame is."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from clip4str.core.device_array import DeviceArray
from clip4str.core.errors import ImageError, LayoutError
from clip4str.core.planes import chosen_matrix, planes_of
from clip4str.core.rectify import checked_quads

from ...cuda.arrays import array_of
from ...manifest import Manifest
from ..contract import Backend
from .crops import Crops, Cut, Picture
from .session import Pipeline, Session


class FrameBackend(Backend):
    """Words and thumbnails of frames, over a session. All calls raise BackendError if CUDA fails."""

    name = "tensorrt"
    manifest: Manifest
    _session: Session

    def _entered(self, build: bool = True) -> AbstractContextManager[Pipeline]:
        raise NotImplementedError

    def crop(self, frame: Any, quads: Any, *, normalization: str = "half", **how: Any) -> Any:
        """Words of a frame, cut out by the compiled kernel when they are read, straight into the engine's input.

        frame: of any kind that `accept` takes, on the host or the device, or a pair of them (luma, chroma). quads: on
        the host or the device, small as they are. how: layout, matrix, full_range. Where the compiled kernels are
        missing, with one RuntimeWarning, as on any host: arrays. Raises what core.rectify.rectified does, and
        BackendError for a frame on the device then.
        """
        with self._entered():
            picture, corners = self._picture(frame, **how), self._on_host(quads)
            cut = Cut(picture, checked_quads(corners, picture.size))
            if self._cropper("a frame on the GPU" if picture.on_device else "") is not None:
                return Crops(self, [cut], self.image_size, normalization)
        return super().crop(frame, corners, normalization=normalization, **how)

    def cut_out(self, crops: Crops) -> np.ndarray:
        """On the host, (N, 3, H, W)."""
        done = [np.empty((0, *crops.shape[1:]), np.float32)]
        with self._entered() as pipeline:
            buffer = pipeline.buffers["image.pixels"]
            for first in range(0, len(crops), buffer.rows):
                part = crops[first : first + buffer.rows]
                self._cropper("a word of a frame").cut(part, buffer.address, pipeline.quads)
                done.append(self._session.stream.download(np.empty(part.shape, np.float32), buffer.address))
        return np.concatenate(done)

    def join(self, parts: Sequence[Any]) -> Any:
        return parts[0].joined(parts[1:]) if isinstance(parts[0], Crops) else super().join(parts)

    def thumbnail(self, frame: Any, long_side: int, *, colour: bool = False, **how: Any) -> np.ndarray:
        """As the contract's, by the compiled kernel for a frame on the device."""
        with self._entered():
            picture = self._picture(frame, **how)
            if picture.on_device:
                return self._cropper("a frame on the GPU").thumbnail(picture, long_side, colour)
        return super().thumbnail(frame, long_side, colour=colour, **how)

    def rows(self, frame: Any, first: int, last: int, layout: str = "rgb") -> tuple[np.ndarray, ...]:
        with self._entered():
            picture = self._picture(frame, layout)
            if not picture.on_device:
                return super().rows(frame, first, last, layout)
            half = (first // 2, -(-last // 2)) if layout == "nv12" else (first, last)
            bounds = [(first, last), half][: len(picture.planes)]
            return tuple(self._downloaded(plane[a:b]) for plane, (a, b) in zip(picture.planes, bounds))

    # How

    def _cropper(self, needed: str, quietly: bool = False) -> Any:
        """The compiled kernels that read pixels, opened when first asked for. None where there are none; raises
        BackendError then if anything is `needed`."""
        s, size, normalization = self._session, self.image_size, self.manifest.normalization
        return s.cropping.get(needed, size, normalization, s.stream, s.stack, s.kernels, quietly=quietly)

    def _picture(self, frame: Any, layout: str = "rgb", matrix: str | None = None, full_range: bool = False) -> Picture:
        """A frame, checked. Raises ShapeError, ImageError, LayoutError, UsageError."""
        parts = frame if isinstance(frame, (tuple, list)) else (frame,)
        stream, wanted = self._session.stream, f"expected uint8 pixels of {layout}"
        arrays = tuple(array_of("frame:", part, stream.cuda, stream.handle, wanted) for part in parts)
        planes = planes_of(arrays if len(arrays) > 1 else arrays[0], layout)
        if len({isinstance(plane, np.ndarray) for plane in planes}) > 1:
            raise ImageError("frame: luma and chroma are to be both on the GPU or both on the host")
        return Picture(planes, layout, chosen_matrix(matrix, planes[0].shape[:2]), bool(full_range))

    def _on_host(self, quads: Any) -> Any:
        if isinstance(quads, (list, tuple, np.ndarray)):
            return quads
        found = array_of("quads:", quads, self._session.stream.cuda, self._session.stream.handle, "expected (N, 4, 2)")
        return found if isinstance(found, np.ndarray) else self._downloaded(found)

    def _downloaded(self, array: DeviceArray) -> np.ndarray:
        """On the host, dense. Its rows are, at least."""
        if not array.rows_are_dense:
            raise LayoutError(f"an array on the GPU of {array.shape} with strides {array.strides}: make it contiguous")
        step, width = (array.strides[0], array.row_bytes) if len(array) > 1 else (array.row_bytes,) * 2
        room = np.empty(len(array) * step, np.uint8)
        if room.size:
            self._session.stream.download(room[: (len(array) - 1) * step + width], array.address)
        rows = np.lib.stride_tricks.as_strided(room, (len(array), width), (step, 1))
        return np.ascontiguousarray(rows).view(array.dtype).reshape(array.shape)
