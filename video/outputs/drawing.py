"""Words drawn onto a picture."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from clip4str.core.console import one_line
from clip4str.core.output_files import write_whole

from ..events import Shown
from ..frames import Frame, rgb
from .lettering import lettering

if TYPE_CHECKING:
    from ..photo import PhotoWord

COLOUR = (46, 204, 113)  # RGB, of words that have settled
PENDING = (240, 178, 50)


def save_photo(file: Path, pixels: np.ndarray, words: Sequence[PhotoWord]) -> None:
    """pixels: uint8 (H, W, 3) RGB. Into a .png or .jpg, whole or not at all. Raises UsageError."""
    from PIL import Image

    drawn = annotated(Frame(pixels, 0.0), [Shown(word.quad, word.word.text, word.word.confidence) for word in words])
    out = io.BytesIO()
    Image.fromarray(drawn).save(out, "PNG" if file.suffix.lower() == ".png" else "JPEG", quality=92)
    write_whole(file, out.getvalue())


def annotated(frame: Frame, words: Sequence[Shown]) -> np.ndarray:
    """(H, W, 3) RGB, a copy of the frame with the words' outlines and texts."""
    import cv2

    pixels = np.array(rgb(frame))
    height = max(12, min(36, pixels.shape[0] // 36))
    thick = max(1, height // 10)
    for word in words:
        colour = COLOUR if word.settled else PENDING
        corners = np.clip(np.round(np.asarray(word.quad, float)), -(2**14), 2**14).astype(np.int32)
        cv2.polylines(pixels, [corners], True, colour, thick, cv2.LINE_AA)
    for word in words:
        if word.text:
            _label(pixels, word, height)
    return pixels


def _label(pixels: np.ndarray, word: Shown, size: int) -> None:
    """The word on a plate above its outline; below it, where there is no room."""
    letters = lettering(one_line(word.text), size)[: pixels.shape[0], : pixels.shape[1]]
    height, width = letters.shape
    low, high = np.nan_to_num(np.asarray(word.quad, float)).min(0), np.nan_to_num(np.asarray(word.quad, float)).max(0)
    top = low[1] - height - 2 if low[1] >= height + 2 else high[1] + 2
    y = int(np.clip(top, 0, pixels.shape[0] - height))
    x = int(np.clip(low[0], 0, pixels.shape[1] - width))
    plate = np.array(COLOUR if word.settled else PENDING, np.float32)
    cover = letters[:, :, None].astype(np.float32) / 255
    pixels[y : y + height, x : x + width] = np.round(plate * (1 - cover) + 16 * cover)
