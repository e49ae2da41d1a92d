"""The picture in a video buffer's bytes, copied out: the buffer goes its way."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from clip4str.core.errors import ImageError

PACKED = {"RGB": ("rgb", 3), "BGR": ("bgr", 3), "RGBA": ("rgb", 4), "RGBx": ("rgb", 4), "BGRA": ("bgr", 4),
          "BGRx": ("bgr", 4)}  # fmt: skip
PLANAR = {"I420": (1, 2), "YV12": (2, 1)}  # planes of U and V


def pixels(
    data: np.ndarray, format: str, width: int, height: int, strides: Sequence[int], offsets: Sequence[int]
) -> tuple[np.ndarray, str]:
    """A Frame's pixels and layout. data: uint8 (N,); strides, offsets: bytes from row to row and to the first row, of
    each plane. An odd last column or row of NV12, I420 and YV12 is left out. Raises ImageError where data is too
    short for what it is said to hold."""

    def plane(number: int, rows: int, row: int) -> np.ndarray:
        stride, offset = strides[number], offsets[number]
        if stride < row or offset < 0 or offset + stride * (rows - 1) + row > len(data):
            raise ImageError(f"a buffer of {len(data)} bytes holds no {format} picture of {width}x{height}")
        return np.lib.stride_tricks.as_strided(data[offset:], (rows, row), (stride, 1), writeable=False)

    if format in PACKED:
        layout, channels = PACKED[format]
        packed = plane(0, height, width * channels).reshape(height, width, channels)
        return packed[..., :3].copy(), layout
    luma = plane(0, height, width)
    if format == "GRAY8":
        return np.repeat(luma[..., None], 3, axis=2), "rgb"
    height, width = height - height % 2, width - width % 2
    out = np.empty((height * 3 // 2, width), np.uint8)
    out[:height] = luma[:height, :width]
    if format == "NV12":
        out[height:] = plane(1, height // 2, width)
    else:
        for first, number in enumerate(PLANAR[format]):
            out[height:, first::2] = plane(number, height // 2, width // 2)
    return out, "nv12"
