"""What a video frame's memory is made of: one plane of pixels, or luma and chroma, on the host or a GPU."""

from __future__ import annotations

from typing import Any

import numpy as np

from .device_array import DeviceArray, is_on_device
from .errors import ImageError, LayoutError, ShapeError, UsageError

LAYOUTS = ("rgb", "bgr", "nv12")  # numbered so in the compiled kernels, as the next
MATRICES = ("bt601", "bt709")
SD_HEIGHT, HD_WIDTH = 576, 1280
MOST_FRAME = 32768  # pixels of the frame's height and width: float32 then still knows 1/256 of a pixel
DEEP_TYPES = ("uint16", "int16")
DEEP = "10- and 16-bit frames (P010, P016) are not read: have the decoder give NV12, which has 8 bits"


def planes_of(frame: Any, layout: str) -> tuple[Any, ...]:
    """(H, W, 3), or luma (H, W) and chroma (H / 2, W), of arrays on the host or DeviceArrays, sharing their memory.

    frame: (H, W, 3) uint8; for "nv12" (H * 3 / 2, W), or the pair of luma (H, W) or (H, W, 1) and chroma (H / 2, W) or
    (H / 2, W / 2, 2). On a GPU its rows are dense, at any distance. Raises ShapeError, ImageError, LayoutError,
    UsageError.
    """
    if layout not in LAYOUTS:
        raise UsageError(f"layout is {', '.join(map(repr, LAYOUTS[:-1]))} or {LAYOUTS[-1]!r}, not {layout!r}")
    parts: tuple[Any, ...] = tuple(frame) if isinstance(frame, (tuple, list)) else (frame,)
    for part in parts:
        _check_kind(part, layout)
    if layout != "nv12":
        if len(parts) != 1 or parts[0].ndim != 3 or parts[0].shape[2] != 3:
            raise ShapeError(f"frame: {layout} is one array (height, width, 3), got {[part.shape for part in parts]}")
        planes: tuple[Any, ...] = parts
    elif len(parts) == 1:
        rows = parts[0].shape[0]
        if parts[0].ndim != 2 or rows % 3:
            raise ShapeError(f"frame: nv12 is (height * 3 / 2, width), got {parts[0].shape}")
        planes = (parts[0][: rows // 3 * 2], parts[0][rows // 3 * 2 :])
    else:
        planes = tuple(_flat(part) for part in parts)
    height, width = planes[0].shape[:2]
    if not (1 <= height <= MOST_FRAME and 1 <= width <= MOST_FRAME):
        raise ShapeError(f"frame: 1 to {MOST_FRAME} pixels a side, got {width}x{height}")
    if layout == "nv12" and (height % 2 or width % 2 or len(planes) != 2 or planes[1].shape != (height // 2, width)):
        raise ShapeError(
            f"frame: nv12 has even height and width, and chroma (height / 2, width), got {[p.shape for p in planes]}"
        )
    for plane in planes:
        _check_rows(plane)
    return planes


def chosen_matrix(matrix: str | None, size: tuple[int, int]) -> str:
    """matrix; for None what YUV of this (height, width) is where its maker does not tell: as video players have it,
    "bt709" from HD on, else "bt601". Raises UsageError."""
    if matrix is not None and matrix not in MATRICES:
        raise UsageError(f"matrix is 'bt601', 'bt709' or None, by the frame's size, not {matrix!r}")
    return matrix or ("bt709" if size[0] > SD_HEIGHT or size[1] >= HD_WIDTH else "bt601")


def host_planes(frame: Any, layout: str) -> tuple[np.ndarray, ...]:
    """planes_of a frame that is to be on the host. Raises ImageError for one that is not, too."""
    if is_on_device(frame):
        raise ImageError(
            "frame: is on a GPU, which the backends tensorrt and torch read; for this one copy it to the host"
        )
    return planes_of(frame, layout)


def _check_kind(part: Any, layout: str) -> None:
    if not isinstance(part, (np.ndarray, DeviceArray)):
        raise ImageError(f"frame: expected a uint8 numpy array for {layout}, got a {type(part).__name__}")
    if part.dtype in DEEP_TYPES:
        raise ImageError(f"frame: {part.dtype}: {DEEP}")
    if part.dtype != "uint8":
        where = "numpy array" if isinstance(part, np.ndarray) else "array on the GPU"
        raise ImageError(f"frame: expected a uint8 {where} for {layout}, got a {part.dtype} array")
    if part.ndim not in (2, 3):
        raise ShapeError(f"frame: {layout} has two or three dimensions, got {part.shape}")


def _flat(part: Any) -> Any:
    """(rows, bytes) of (rows, pixels, channels)."""
    if part.ndim == 2:
        return part
    shape = (part.shape[0], part.shape[1] * part.shape[2])
    if isinstance(part, np.ndarray):
        return part.reshape(shape)
    _check_rows(part)
    return part.viewed(shape, (part.strides[0], 1))


def _check_rows(plane: Any) -> None:
    if isinstance(plane, DeviceArray) and not (
        plane.rows_are_dense and (plane.strides[0] >= plane.row_bytes or len(plane) == 1)
    ):
        raise LayoutError(
            f"frame: on the GPU its rows are in one piece each, one under the other, got {plane.shape} with strides "
            f"{plane.strides}; make it contiguous"
        )
