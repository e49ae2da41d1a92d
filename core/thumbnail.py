"""Small pictures of whole frames, each pixel the mean of the area below it. The specification of kernels/thumbnail.

What is computed are whole numbers, so every implementation can and shall give the same bits.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .errors import UsageError
from .planes import chosen_matrix, host_planes
from .rectify import nv12_to_rgb

LUMA = (9798, 19235, 3735)  # of red, green, blue in units of 2^-15, as OpenCV has BT.601's
MOST_SIDE = 4096  # of a thumbnail


def thumbnail_size(size: tuple[int, int], long_side: int) -> tuple[int, int]:
    """(height, width) of a frame's thumbnail whose longer side is `long_side`, never larger than the frame. Raises
    UsageError."""
    if not 1 <= long_side <= MOST_SIDE:
        raise UsageError(f"a thumbnail's longer side is 1 to {MOST_SIDE} pixels, not {long_side}")
    scale = min(1.0, long_side / max(size))
    height, width = (max(1, round(side * scale)) for side in size)
    return height, width


def thumbnail(
    frame: Any, size: tuple[int, int], layout: str = "rgb", *, colour: bool = False, matrix: str | None = None,
    full_range: bool = False,
) -> np.ndarray:  # fmt: skip
    """A frame on the host, shrunk to (height, width): uint8 (1, h, w), or with colour (3, h, w) RGB.

        out = round(sum over the frame's pixels of value x area shared with the output's / area of the output's)

    Grey is luma where the frame has it, else LUMA of its colours, rounded. frame: as planes.host_planes takes it, whose
    errors this raises.
    """
    planes = host_planes(frame, layout)
    pixels = _pixels(planes, layout, colour, matrix, full_range).astype(np.int64)
    across = _area_sums(pixels, size[1])
    both = _area_sums(across.swapaxes(1, 2), size[0]).swapaxes(1, 2)
    area = pixels.shape[1] * pixels.shape[2]
    return ((2 * both + area) // (2 * area)).astype(np.uint8)


def _pixels(
    planes: tuple[np.ndarray, ...], layout: str, colour: bool, matrix: str | None, full_range: bool
) -> np.ndarray:
    """(1 or 3, H, W)."""
    if layout == "nv12":
        luma, chroma = planes
        if not colour:
            return luma[None]
        chosen = chosen_matrix(matrix, (luma.shape[0], luma.shape[1]))
        return nv12_to_rgb(luma, chroma, chosen, full_range).transpose(2, 0, 1)
    rgb = (planes[0][..., ::-1] if layout == "bgr" else planes[0]).transpose(2, 0, 1)
    if colour:
        return rgb
    return (np.tensordot(np.array(LUMA), rgb.astype(np.int64), 1) + 2**14 >> 15)[None]


def _area_sums(values: np.ndarray, count: int) -> np.ndarray:
    """Sums over `count` equal parts of the last axis, int64: in each, a value counts as often as parts of it, one in
    `count`, are within."""
    length = values.shape[-1]
    before = np.concatenate((np.zeros((*values.shape[:-1], 1), np.int64), values.cumsum(-1)), -1)
    whole, part = np.divmod(np.arange(count + 1) * length, count)
    upto = before[..., whole] * count + part * values[..., np.minimum(whole, length - 1)]
    return np.diff(upto)
