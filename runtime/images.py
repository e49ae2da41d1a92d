"""Images in: any file Pillow reads, arrays, PIL images -> the network's normalised pixels.

The resize is Pillow's own antialiased bicubic, straight to the input size without keeping the aspect ratio, as in
the published evaluation: across first, then down, as every Pillow before 13 does it in one call. (13 shrinks tall
pictures the other way round, and rounds differently.)
"""

from __future__ import annotations

import io
import os
import warnings
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Union

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from clip4str.core.errors import ImageError, first_line
from clip4str.core.normalization import NORMALIZATION

ImageLike = Union[np.ndarray, Image.Image, str, "os.PathLike[str]", bytes]

MAX_PIXELS = 64_000_000  # a word crop is thousands; anything larger is a mistake or a decompression bomb
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF", "MPO")


@cache
def _formats() -> tuple[str, ...]:
    """Of Pillow's formats those that are pictures: some of the others start programs (EPS runs Ghostscript)."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def load_image(source: ImageLike) -> Image.Image:
    """An RGB image, upright (EXIF orientation applied), transparency laid over white, 16 bits reduced to 8.

    source: path, encoded bytes, PIL image, or uint8 array (H, W, 3) RGB or (H, W) grey.
    Raises ImageError, one line, naming the source and what is wrong with it.
    """
    name = os.fspath(source) if isinstance(source, (str, os.PathLike)) else f"<{type(source).__name__}>"
    if isinstance(source, np.ndarray):
        return _from_array(source)
    try:
        if isinstance(source, Image.Image):
            return _to_rgb(source, name)
        data = io.BytesIO(source) if isinstance(source, bytes) else Path(source)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own bomb warning: _to_rgb refuses well below it
            with Image.open(data, formats=_formats()) as image:
                return _to_rgb(image, name)
    except ImageError:
        raise
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file") from None
    except IsADirectoryError:
        raise ImageError(f"{name}: is a folder, not an image") from None
    except PermissionError:
        raise ImageError(f"{name}: permission denied") from None
    except UnidentifiedImageError:
        raise ImageError(f"{name}: {_not_an_image(source)}") from None
    except Image.DecompressionBombError:
        raise ImageError(f"{name}: far more pixels than the {MAX_PIXELS:,} allowed") from None
    except Exception as error:  # decoders raise nearly anything on damaged data
        reason = first_line(error)
        raise ImageError(f"{name}: damaged image ({reason})") from None


def prepare(images: Sequence[ImageLike], size: tuple[int, int], normalization: str = "half") -> np.ndarray:
    """Images -> (N, 3, H, W) float32, normalised. size: (height, width). Raises ImageError."""
    height, width = size
    pixels = np.empty((len(images), height, width, 3), np.float32)
    for row, source in zip(pixels, images):
        image = load_image(source)
        across = image.resize((width, image.height), Image.Resampling.BICUBIC)
        row[:] = np.asarray(across.resize((width, height), Image.Resampling.BICUBIC))
    mean, std = (np.asarray(v, np.float32) for v in NORMALIZATION[normalization])
    pixels /= 255
    pixels -= mean
    pixels /= std
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))


def _from_array(array: np.ndarray) -> Image.Image:
    if array.dtype != np.uint8 or array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] != 3):
        raise ImageError(
            f"<array>: expected uint8 of shape (H, W, 3) or (H, W), got {array.dtype} of shape {array.shape}"
        )
    _check_size((array.shape[1], array.shape[0]), "<array>")
    return Image.fromarray(np.ascontiguousarray(array)).convert("RGB")


def _to_rgb(image: Image.Image, name: str) -> Image.Image:
    _check_size(image.size, name)
    try:
        upright = ImageOps.exif_transpose(image)
    except Exception:  # the picture is good, only its EXIF is damaged
        upright = image
    image = upright
    if image.mode == "F":
        raise ImageError(f"{name}: floating-point pixels; save it with 8 or 16 bits a channel")
    if image.mode.startswith("I"):
        image = _to_eight_bits(image)
    if image.mode in ("LA", "PA", "La", "RGBa") or "transparency" in image.info:
        image = image.convert("RGBA")
    if image.mode == "RGBA":
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image)
    return image.convert("RGB")


def _to_eight_bits(image: Image.Image) -> Image.Image:
    values = np.asarray(image).astype(np.float64)
    if image.mode.startswith("I;16") or values.max(initial=0) > 255:
        values /= 257  # 65535 -> 255
    return Image.fromarray(np.clip(values, 0, 255).round().astype(np.uint8))


def _check_size(size: tuple[int, int], name: str) -> None:
    width, height = size
    if width < 2 or height < 2:
        raise ImageError(f"{name}: {width}x{height} pixels hold no word")
    if width * height > MAX_PIXELS:
        raise ImageError(f"{name}: {width}x{height} is more than the {MAX_PIXELS:,} pixels allowed")


def _not_an_image(source: ImageLike) -> str:
    if isinstance(source, bytes):
        return "not an image that Pillow can read" if source else "the file is empty"
    if isinstance(source, (str, os.PathLike)) and Path(source).stat().st_size == 0:
        return "the file is empty"
    return "not an image that Pillow can read"
