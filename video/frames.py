"""Frames: what sources give, and the looks at their pixels that the rest of the room needs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from clip4str.core.device_array import dtype_of, is_on_device, shape_of
from clip4str.core.errors import ImageError, UsageError
from clip4str.core.planes import DEEP, DEEP_TYPES, LAYOUTS, MATRICES, chosen_matrix, planes_of
from clip4str.core.rectify import yuv_matrix
from clip4str.runtime import frame_size


@dataclass(frozen=True)
class Frame:
    """One picture of a source.

    pixels: uint8, (H, W, 3) for "rgb" and "bgr"; for "nv12" (H * 3 / 2, W), or the pair of luma (H, W) and chroma
    (H / 2, W). numpy arrays, or arrays on a GPU (DLPack, `__cuda_array_interface__`, core.device_array.DeviceArray),
    whose rows may be at any distance. time: seconds since the source's first frame, when it is shown; index: its number
    there, from 0. duration: seconds that it is shown, None where only the next frame tells. damaged: decoded with
    errors, neither searched nor read. broken: what happened before it ("reconnected", "size changed", ...), so that
    nothing is followed across; empty otherwise. matrix, full_range: of NV12, "bt601" or "bt709", and whether luma and
    chroma are 0..255; matrix None: by the size, as players do, BT.709 from more than 576 rows or 1280 columns on.
    arrived: time.monotonic() when a source that is read ahead had it decoded, None where that is not known.
    """

    pixels: Any
    time: float
    index: int = 0
    layout: str = "rgb"
    duration: float | None = None
    damaged: bool = False
    broken: str = ""
    matrix: str | None = None
    full_range: bool = False
    arrived: float | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        return frame_size(self.pixels, self.layout)

    @property
    def on_device(self) -> bool:
        """Do the pixels lie on a GPU?"""
        return is_on_device(self.pixels)

    @property
    def colour(self) -> dict[str, Any]:
        """What a Recognizer's methods need to know of the pixels."""
        return {"layout": self.layout, "matrix": self.matrix, "full_range": self.full_range}


def check_frame(frame: Frame) -> None:
    """Raises ImageError for pixels that are no frame, UsageError for a layout or matrix that there is not."""
    if frame.layout not in LAYOUTS:
        raise UsageError(f"layout is 'rgb', 'bgr' or 'nv12', not {frame.layout!r}")
    if frame.matrix is not None and frame.matrix not in MATRICES:
        raise UsageError(f"matrix is 'bt601', 'bt709' or None, not {frame.matrix!r}")
    pair = isinstance(frame.pixels, tuple)
    parts: tuple[Any, ...] = frame.pixels if pair else (frame.pixels,)
    named = f"frame {frame.index}"
    for part in parts:
        _check_part(part, named, frame)
    if pair and (frame.layout != "nv12" or len(parts) != 2 or len({is_on_device(part) for part in parts}) != 1):
        raise ImageError(f"{named}: luma and chroma of nv12 are a pair, both on the GPU or both on the host")
    shape = shape_of(parts[0])
    if frame.layout != "nv12":
        good, wanted = len(shape) == 3 and shape[2] == 3, "(H, W, 3)"
    elif not pair:
        good, wanted = len(shape) == 2, "(H * 3 / 2, W)"
    else:
        good, wanted = len(shape) == 2 or (len(shape) == 3 and shape[2] == 1), "(H, W) and (H / 2, W)"
    if not good:
        raise ImageError(f"{named}: expected uint8 {wanted} for {frame.layout}, got {shape}")
    if frame.layout == "nv12" and ((not pair and shape[0] % 3) or frame.size[0] % 2 or shape[1] % 2):
        what = "even height and width" + ("" if pair else ", and height * 3 / 2 rows")
        raise ImageError(f"{named}: nv12 has {what}, got {shape}")
    if pair and math.prod(shape_of(parts[1])) * 2 != math.prod(shape):
        raise ImageError(f"{named}: luma {shape} has chroma of half as many rows, got {shape_of(parts[1])}")


def _check_part(part: Any, named: str, frame: Frame) -> None:
    device = is_on_device(part)
    if not device and not isinstance(part, np.ndarray):
        raise ImageError(f"{named}: expected a numpy array or one on a GPU, got a {type(part).__name__}")
    dtype = dtype_of(part)
    if dtype in DEEP_TYPES:
        raise ImageError(f"{named}: {dtype}: {DEEP}")
    if dtype not in ("uint8", ""):
        raise ImageError(f"{named}: expected uint8 pixels for {frame.layout}, got {dtype} {shape_of(part)}")


def rgb(frame: Frame) -> np.ndarray:
    """(H, W, 3) uint8 RGB; a view where it is that already. Raises ImageError for a frame on a GPU."""
    pixels = _on_host(frame)
    if frame.layout == "rgb":
        return pixels
    if frame.layout == "nv12":
        luma, chroma = planes_of(pixels, "nv12")
        return _yuv_to_rgb(luma, chroma, chosen_matrix(frame.matrix, frame.size), frame.full_range)
    import cv2

    return cv2.cvtColor(pixels, cv2.COLOR_BGR2RGB)


def grey(frame: Frame) -> np.ndarray:
    """(H, W) uint8; of nv12 its luma. Raises ImageError for a frame on a GPU."""
    pixels = _on_host(frame)
    if frame.layout == "nv12":
        return planes_of(pixels, "nv12")[0]
    import cv2

    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY if frame.layout == "rgb" else cv2.COLOR_BGR2GRAY)


def _on_host(frame: Frame) -> Any:
    if frame.on_device:
        raise ImageError(f"frame {frame.index}: is on a GPU, where this does not work; copy it to the host")
    return frame.pixels


def _yuv_to_rgb(luma: np.ndarray, chroma: np.ndarray, matrix: str, full_range: bool) -> np.ndarray:
    """core.rectify.nv12_to_rgb, to a level, in a hundredth of its time."""
    import cv2

    height, width = luma.shape
    pairs = np.ascontiguousarray(chroma).reshape(height // 2, width // 2, 2)
    upon = cv2.resize(pairs, (width, height), interpolation=cv2.INTER_NEAREST)
    return coloured(cv2.merge((np.ascontiguousarray(luma), upon)), matrix, full_range)


def coloured(yuv: np.ndarray, matrix: str, full_range: bool) -> np.ndarray:
    """(H, W, 3) uint8 RGB of luma and both chromas, each pixel's own. matrix: "bt601" or "bt709"."""
    import cv2

    black, y, rv, gu, gv, bu = yuv_matrix(matrix, full_range)
    to_rgb = np.array([[y, 0, rv, 0], [y, gu, gv, 0], [y, bu, 0, 0]], np.float64)
    to_rgb[:, 3] = -black * y - 128 * to_rgb[:, 1:3].sum(1)
    return cv2.transform(yuv, to_rgb / 2**20)
