"""Words of video frames, which may lie on a GPU: the part of a Recognizer that takes frames."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, NamedTuple, overload

import numpy as np

from clip4str.core.device_array import shape_of
from clip4str.core.errors import ImageError, NonFiniteError, ShapeError
from clip4str.core.planes import chosen_matrix
from clip4str.core.rectify import checked_shape, is_tall, rectified

from .backends.contract import Backend
from .manifest import Manifest
from .word import Word

MARGIN = 2  # rows around a quad that its pixels may be mixed from


class FrameQuads(NamedTuple):
    """Words of one frame: see Recognizer.read_quads for each."""

    frame: Any
    quads: Any
    layout: str = "rgb"
    matrix: str | None = None
    full_range: bool = False

    @property
    def how(self) -> dict[str, Any]:
        return {"layout": self.layout, "matrix": self.matrix, "full_range": self.full_range}


class FrameReader:
    """What Recognizer has for frames. A frame is uint8: (H, W, 3), or with layout="nv12" (H * 3 / 2, W) or the pair of
    luma (H, W) and chroma (H / 2, W) or (H / 2, W / 2, 2), rows at any distance. It may be a numpy array, and for the
    backends on a GPU what lies there and has DLPack or `__cuda_array_interface__`, which is read in place; for memory
    that is only an address there is core.device_array.DeviceArray. layout may also be "bgr". matrix ("bt601", "bt709",
    None: by the size, see core.planes.chosen_matrix) and full_range are of NV12.
    """

    backend: Backend
    manifest: Manifest

    def _check_process(self) -> None:
        raise NotImplementedError

    def _words(self, pixels: Any, each: bool = False, first: int = 0) -> list[Any]:
        raise NotImplementedError

    def read_quads(self, frame: Any, quads: Any, layout: str = "rgb", *, turn: bool = True, **how: Any) -> list[Word]:
        """Words of quadrilaterals in a frame, cut out and rectified: on the GPU by the torch and the TensorRT backend
        (which falls back to the host, with one RuntimeWarning, for frames on the host where its compiled kernels are
        missing), else on the host in numpy. Pixels are the same to the bit, see kernels/crop_resize/api.py.

        frame, layout: see FrameReader. quads (N, 4, 2): corners in pixels from the word's top left on, clockwise. turn:
        quads in lists and numpy arrays that are 1.5 times as high as wide are also read turned by a quarter, either
        way, and the surest answer is theirs: see Word.turns. how: matrix and full_range of NV12. Raises ShapeError with
        a bad quad's index, ImageError, DtypeError, LayoutError, UsageError; BackendError for a frame on a GPU whose
        backend has no kernels for it.
        """
        return self.read_frames([FrameQuads(frame, quads, layout, **how)], turn=turn)[0]

    read_boxes = read_quads

    @overload
    def read_frames(
        self, asked: Sequence[FrameQuads], *, turn: bool = True, on_error: Literal["raise"] = "raise"
    ) -> list[list[Word]]: ...

    @overload
    def read_frames(
        self, asked: Sequence[FrameQuads], *, turn: bool = True, on_error: Literal["skip"]
    ) -> list[list[Word | None]]: ...

    def read_frames(self, asked: Sequence[FrameQuads], *, turn: bool = True, on_error: str = "raise") -> Any:
        """As read_quads, of several frames in as few batches as there can be: the words of each.

        on_error: "raise", or "skip": None for a word that the network's arithmetic cannot cope with.
        """
        self._check_process()
        cut, ways = [], []
        for one in asked:
            crops, turns = self._cut(one, turn)
            cut.append(crops)
            ways.append(turns)
        parts = [crops for crops in cut if len(crops)]
        if not parts:
            return [[] for _ in asked]
        joined = parts[0] if len(parts) == 1 else self.backend.join(parts)
        words = iter(self._words(self.backend.accept(joined), each=on_error == "skip"))
        return [[_best([(next(words), n) for n in these]) for these in turns] for turns in ways]

    def _cut(self, asked: FrameQuads, turn: bool) -> tuple[Any, list[tuple[int, ...]]]:
        """Crops, and the quarter turns in which each quad is among them."""
        frame, quads = asked.frame, asked.quads
        how = {"normalization": self.manifest.normalization, **asked.how}
        if not turn or not isinstance(quads, (list, tuple, np.ndarray)):
            crops = self.backend.crop(frame, quads, **how)
            return crops, [(0,)] * len(crops)
        corners = checked_shape(quads)
        ways: list[tuple[int, ...]] = [(0, 1, 3) if tall else (0,) for tall in is_tall(corners)]
        turned = [np.roll(quad, -turns, axis=0) for quad, these in zip(corners, ways) for turns in these]
        try:
            return self.backend.crop(frame, np.array(turned).reshape(-1, 4, 2), **how), ways
        except ShapeError:
            self.backend.crop(frame, corners, **how)  # the same, under the number that the caller knows
            raise

    def crop(self, frame: Any, quad: Any, layout: str = "rgb", **how: Any) -> np.ndarray:
        """One word as a picture on the host, uint8 (h, w, 3) RGB of its own size; of a frame on a GPU only the rows
        that it covers are copied. Raises as read_quads."""
        corners = checked_shape([quad])[0]
        height, width = frame_size(frame, layout)
        how = {**how, "matrix": chosen_matrix(how.get("matrix"), (height, width))}
        low, high = np.nan_to_num(corners[:, 1]).min(), np.nan_to_num(corners[:, 1]).max()
        first = max(0, min(max(math.floor(low) - MARGIN, 0), height - 2) // 2 * 2)
        last = min(height, max(first + 2, (math.ceil(high) + MARGIN + 1) // 2 * 2))
        planes = self.backend.rows(frame, first, last, layout)
        moved = corners - (0, first)
        return next(rectified(planes if len(planes) > 1 else planes[0], [moved], layout, **how))

    def thumbnail(
        self, frame: Any, layout: str = "rgb", long_side: int = 640, *, colour: bool = False, **how: Any
    ) -> np.ndarray:
        """A frame shrunk to `long_side` pixels, never enlarged, on the host: uint8 (h, w) grey, or with colour
        (h, w, 3) RGB. Of a frame on a GPU nothing else is copied. Raises as read_quads."""
        made = self.backend.thumbnail(frame, long_side, colour=colour, layout=layout, **how)
        return np.ascontiguousarray(made.transpose(1, 2, 0)) if colour else made[0]


def frame_size(frame: Any, layout: str) -> tuple[int, int]:
    """(height, width) of a frame of any kind. Raises ImageError for what tells no shape."""
    pair = isinstance(frame, (tuple, list))
    shape = shape_of(frame[0] if pair and len(frame) else frame)
    if len(shape) < 2:
        raise ImageError(f"a frame of shape {shape} has no height and width")
    return (shape[0] * 2 // 3, shape[1]) if layout == "nv12" and not pair else (shape[0], shape[1])


def _best(read: list[tuple[Word | NonFiniteError | ImageError, int]]) -> Word | None:
    """The surest of a quad's readings. None where there is none."""
    words = [replace(word, turns=turns) for word, turns in read if isinstance(word, Word)]
    return max(words, key=lambda word: word.confidence, default=None)
