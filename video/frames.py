"""Frames: what sources give, and the looks at their pixels that the rest of the room needs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from clip4str.core.errors import ImageError, UsageError
from clip4str.core.rectify import LAYOUTS


@dataclass(frozen=True)
class Frame:
    """One picture of a source.

    pixels: uint8, (H, W, 3) for "rgb" and "bgr", (H * 3 / 2, W) for "nv12". time: seconds since the source's first
    frame, when it is shown; index: its number there, from 0. duration: seconds that it is shown, None where only the
    next frame tells. damaged: decoded with errors, neither searched nor read. broken: what happened before it
    ("reconnected", "size changed", ...), so that nothing is followed across; empty otherwise. arrived: time.monotonic()
    when a source that is read ahead had it decoded, None where that is not known.
    """

    pixels: Any
    time: float
    index: int = 0
    layout: str = "rgb"
    duration: float | None = None
    damaged: bool = False
    broken: str = ""
    arrived: float | None = None

    @property
    def size(self) -> tuple[int, int]:
        """(height, width) in pixels."""
        height, width = self.pixels.shape[:2]
        return (height * 2 // 3, width) if self.layout == "nv12" else (height, width)


def check_frame(frame: Frame) -> None:
    """Raises ImageError for pixels that are no frame, UsageError for a layout that there is not."""
    if frame.layout not in LAYOUTS:
        raise UsageError(f"layout is 'rgb', 'bgr' or 'nv12', not {frame.layout!r}")
    pixels = frame.pixels
    if not isinstance(pixels, np.ndarray):
        raise ImageError(f"frame {frame.index}: expected a numpy array, got a {type(pixels).__name__}")
    wanted, shape = ("(H * 3 / 2, W)", pixels.shape) if frame.layout == "nv12" else ("(H, W, 3)", pixels.shape[:2])
    if pixels.dtype != np.uint8 or len(shape) != 2 or (frame.layout != "nv12" and pixels.shape[2:] != (3,)):
        raise ImageError(
            f"frame {frame.index}: expected uint8 {wanted} for {frame.layout}, got {pixels.dtype} {pixels.shape}"
        )
    if frame.layout == "nv12" and (shape[0] % 3 or shape[1] % 2):
        raise ImageError(f"frame {frame.index}: nv12 has even height and width, and height * 3 / 2 rows, got {shape}")


def rgb(frame: Frame) -> np.ndarray:
    """(H, W, 3) uint8 RGB; a view where it is that already."""
    if frame.layout == "rgb":
        return np.asarray(frame.pixels)
    import cv2

    return cv2.cvtColor(
        np.asarray(frame.pixels), cv2.COLOR_BGR2RGB if frame.layout == "bgr" else cv2.COLOR_YUV2RGB_NV12
    )


def grey(frame: Frame) -> np.ndarray:
    """(H, W) uint8; of nv12 its luma."""
    if frame.layout == "nv12":
        return np.asarray(frame.pixels[: frame.pixels.shape[0] * 2 // 3])
    import cv2

    return cv2.cvtColor(np.asarray(frame.pixels), cv2.COLOR_RGB2GRAY if frame.layout == "rgb" else cv2.COLOR_BGR2GRAY)
