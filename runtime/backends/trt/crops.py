"""Words by the compiled kernels (kernels/library), straight into the image engine's input: cut out of frames, or
pictures of their own, resized."""

from __future__ import annotations

import math
import warnings
import weakref
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from clip4str.core.device_array import DeviceArray
from clip4str.core.errors import BackendError, KernelError
from clip4str.core.thumbnail import thumbnail_size

from ...cuda import CudaContextLost, CudaOutOfMemory
from .memory import Buffer, Memory, Stream


@dataclass(frozen=True)
class Picture:
    """A frame that words are cut out of. planes: as core.planes gives them, all on the host or all on our GPU."""

    planes: tuple[Any, ...]
    layout: str
    matrix: str
    full_range: bool

    @property
    def size(self) -> tuple[int, int]:
        """(height, width)"""
        return self.planes[0].shape[0], self.planes[0].shape[1]

    @property
    def on_device(self) -> bool:
        return any(isinstance(plane, DeviceArray) for plane in self.planes)


@dataclass(frozen=True)
class Cut:
    """quads (n, 4, 2) float32 of a frame."""

    picture: Picture
    quads: np.ndarray

    def __len__(self) -> int:
        return len(self.quads)

    def __getitem__(self, rows: slice) -> Cut:
        return replace(self, quads=self.quads[rows])


@dataclass(frozen=True)
class Staged:
    """Pictures on our GPU, as kernels.resize takes them: addresses of the pixels and of the table's first row."""

    pixels: int
    table: int
    count: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, rows: slice) -> Staged:
        start, stop, _ = rows.indices(self.count)
        return Staged(self.pixels, self.table + 12 * start, max(0, stop - start))


class Crops:
    """Words of frames, or pictures, still to be cut out or resized when a batch of them is read: to who counts and cuts
    rows, pixels (N, 3, H, W) float32. Frames must live, and keep their contents, as long."""

    dtype = np.dtype(np.float32)

    def __init__(self, owner: Any, cuts: Sequence[Cut | Staged], size: tuple[int, int], normalization: str) -> None:
        self.owner, self.cuts, self.normalization = owner, cuts, normalization
        self.shape = (sum(map(len, cuts)), 3, *size)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> Crops:
        start, stop, _ = rows.indices(len(self))
        kept, first = [], 0
        for cut in self.cuts:
            part = cut[max(0, start - first) : max(0, stop - first)]
            if len(part):
                kept.append(part)
            first += len(cut)
        return Crops(self.owner, kept, self.shape[2:], self.normalization)

    def joined(self, others: Sequence[Crops]) -> Crops:
        """These, and after them the others."""
        cuts = [cut for crops in (self, *others) for cut in crops.cuts]
        return Crops(self.owner, cuts, self.shape[2:], self.normalization)

    def numpy(self) -> np.ndarray:
        """Cut out, on the host."""
        return self.owner.cut_out(self)


class Room:
    """Memory on the GPU that grows with what is asked for; then what was there is gone. Raises CudaOutOfMemory."""

    def __init__(self, stream: Stream) -> None:
        self._memory, self._address, self._size = Memory(stream), 0, 0

    def at_least(self, size: int) -> int:
        """Its address."""
        if size > self._size:
            self.close()
            self._address = self._memory.on_device(size)
            self._size = size
        return self._address

    def close(self) -> None:
        self._size = 0
        self._memory.close()


class Cropper:
    """The kernels that read frames, and room on the GPU for one that is on the host.

    library: kernels.loader.KernelLibrary.
    """

    def __init__(self, library: Any, stream: Stream) -> None:
        self._library, self._stream = library, stream
        self._uploads, self._small = Room(stream), Room(stream)
        self._there: Any = lambda: None  # a weak reference to the frame that lies in the room

    def cut(self, crops: Crops, to: int, quads: Buffer) -> None:
        """Sends the work. to: where the first row goes. quads: room for as many as there are."""
        corners = [cut.quads for cut in crops.cuts if isinstance(cut, Cut)]
        if corners:
            quads.write(np.concatenate(corners))
            quads.send(sum(map(len, corners)))
            quads.used()
        place, (_, _, height, width) = quads.address, crops.shape
        for cut in crops.cuts:
            how: dict[str, Any] = {"n": len(cut), "height": height, "width": width, "out": to, "out_float32": 1}
            how["normalization"] = crops.normalization
            if isinstance(cut, Staged):
                self._library.resize(stream=self._stream.handle, pixels=cut.pixels, pictures=cut.table, **how)
            else:
                self._library.crop_resize(**self._frame(cut.picture), quads=place, **how)
                place += len(cut) * quads.row_bytes
            to += 12 * height * width * len(cut)

    def thumbnail(self, picture: Picture, long_side: int, colour: bool) -> np.ndarray:
        """uint8 (1 or 3, h, w), on the host."""
        height, width = thumbnail_size(picture.size, long_side)
        out = np.empty((3 if colour else 1, height, width), np.uint8)
        to = self._small.at_least(out.nbytes)
        how = self._frame(picture)
        self._library.thumbnail(**how, height=height, width=width, colour=int(colour), out=to)
        return self._stream.download(out, to)

    def _frame(self, picture: Picture) -> dict[str, Any]:
        """A frame as the library takes it, uploaded where it is on the host."""
        frame, *chroma = picture.planes if picture.on_device else self._uploaded(picture)
        return {
            "stream": self._stream.handle,
            "layout": picture.layout,
            "matrix": picture.matrix,
            "full_range": int(picture.full_range),
            "frame_height": picture.size[0],
            "frame_width": picture.size[1],
            "frame": frame.address,
            "stride": frame.strides[0],
            "chroma": chroma[0].address if chroma else 0,
            "chroma_stride": chroma[0].strides[0] if chroma else 0,
        }

    def _uploaded(self, picture: Picture) -> list[DeviceArray]:
        there, self._there = self._there() is picture, lambda: None
        at = self._uploads.at_least(sum(math.prod(plane.shape) for plane in picture.planes))
        found = []
        for plane in picture.planes:
            if not there:
                self._stream.upload(at, plane)
            found.append(DeviceArray(at, plane.shape))
            at += math.prod(plane.shape)
        self._there = weakref.ref(picture)
        return found

    def close(self) -> None:
        self._uploads.close()
        self._small.close()


def open_cropper(
    size: tuple[int, int], normalization: str, stream: Stream, stack: ExitStack, opened: Any = None
) -> Cropper:
    """opened: a library that is open already, for this network. stack: gets what closes it. Raises BackendError,
    KernelError where there is no library, or it does not serve this size or GPU."""
    from clip4str.kernels import loader
    from clip4str.kernels.shared.variants import NETWORKS

    with ExitStack() as mine:
        if opened is None:
            named = next((n.name for n in NETWORKS.values() if n.image_size == size), None)
            if named is None:
                raise BackendError(f"no kernels are compiled for an input of {size[1]}x{size[0]} pixels")
            opened = loader.KernelLibrary(loader.find_library(), network=named)
            mine.callback(opened.close)
        cropper = Cropper(opened, stream)
        mine.callback(cropper.close)
        _try(cropper, size, normalization, stream)
        stack.push(mine.pop_all())
    return cropper


def _try(cropper: Cropper, size: tuple[int, int], normalization: str, stream: Stream) -> None:
    """One word each way: what the library does not serve shows here, not in the first request."""
    memory = Memory(stream)
    try:
        quads = Buffer(stream, memory, (4, 2), np.dtype(np.float32), 1, True)
        frame = Picture((np.zeros((2, 2, 3), np.uint8),), "rgb", "bt601", False)
        square = np.array([[[0, 0], [2, 0], [2, 2], [0, 2]]], np.float32)
        out = memory.on_device(24 * size[0] * size[1])
        pixels, table = memory.on_device(12), memory.on_device(12)
        stream.upload(pixels, np.zeros(12, np.uint8))
        stream.upload(table, np.array([0, 2, 2], np.int32))
        both: list[Cut | Staged] = [Cut(frame, square), Staged(pixels, table, 1)]
        cropper.cut(Crops(None, both, size, normalization), out, quads)
        stream.synchronise()
    finally:
        memory.close()


class Opening:
    """A cropper that is opened when it is first asked for, and why there is none."""

    def __init__(self) -> None:
        self.cropper: Cropper | None = None
        self.reason = ""
        self._told = False

    def get(self, needed: str, *how: Any, quietly: bool = False) -> Cropper | None:
        """how: open_cropper's arguments. None, with one RuntimeWarning unless quietly, where there is none. needed:
        what cannot do without. Raises BackendError if anything is needed."""
        if self.cropper is None and not self.reason:
            try:
                self.cropper = open_cropper(*how)
            except (CudaContextLost, CudaOutOfMemory):
                raise
            except (BackendError, KernelError) as error:
                self.reason = str(error)
        if self.cropper is None and needed:
            raise BackendError(f"{needed} needs the compiled kernels: {self.reason}")
        if self.cropper is None and not quietly and not self._told:
            self._told = True
            warnings.warn(
                f"frames are cut on the host, not by the compiled kernels: {self.reason}", RuntimeWarning, stacklevel=5
            )
        return self.cropper
