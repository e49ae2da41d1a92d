"""Images in: any file Pillow reads, arrays, PIL images -> the network's normalised pixels.

The resize is Pillow's own antialiased bicubic, straight to the input size without keeping the aspect ratio, as in
the published evaluation: across first, then down, as every Pillow before 13 does it in one call. (13 shrinks tall
pictures the other way round, and rounds differently.) Between the two lies a picture as tall as the original.
"""

from __future__ import annotations

import io
import os
import stat
import warnings
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from typing import IO, Any, Union

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from clip4str.core.errors import ImageError, first_line
from clip4str.core.normalization import NORMALIZATION

from .picture_limits import MAX_PIXELS, PICTURE_BYTES, RESIZE_BYTES, check_scans, check_size

ImageLike = Union[np.ndarray, Image.Image, str, "os.PathLike[str]", bytes, bytearray, memoryview, IO[bytes]]
TAKEN = "paths, encoded bytes, files opened in binary, PIL images, uint8 or bool arrays (H, W) or (H, W, 1 to 4)"

IMAGE_SUFFIXES = {
    ".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".jp2", ".avif"
}  # fmt: skip
_STRIP_PIXELS = 1_000_000  # are converted at a time: arithmetic takes 8 bytes for each channel
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF", "MPO")
_CHANNELS = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}


@cache
def _formats() -> tuple[str, ...]:
    """Of Pillow's formats those that are pictures: some of the others start programs (EPS runs Ghostscript)."""
    Image.init()
    return tuple(name for name in _FORMATS if name in Image.OPEN)


def load_image(source: ImageLike, before: Callable[[int], None] | None = None) -> Image.Image:
    """An RGB image, upright (EXIF orientation applied), 16 bits reduced to 8. Transparent pictures lie on white, or on
    black where what is visible of them is nearer to white.

    source: path of a regular file, encoded bytes, file opened in binary, PIL image, or uint8 or bool array (H, W) or
    (H, W, C): grey, grey and alpha, RGB, RGBA for C = 1, 2, 3, 4. before: is told how many pixels there are, before
    memory is taken for them.
    Raises ImageError, one line, naming the source and what is wrong with it.
    """
    name = name_of(source)
    try:
        if isinstance(source, np.ndarray):
            _check_array(source, before)
            return _to_rgb(_from_array(source), name)
        if isinstance(source, Image.Image):
            return _to_rgb(source, name, before)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's own bomb warning: _to_rgb refuses well below it
            with Image.open(_openable(source, name), formats=_formats()) as image:
                return _to_rgb(image, name, before, ours=True)
    except ImageError:
        raise
    except UnidentifiedImageError:
        raise ImageError(f"{name}: not an image that Pillow can read") from None
    except Image.DecompressionBombError:
        raise ImageError(f"{name}: far more pixels than the {MAX_PIXELS:,} allowed") from None
    except MemoryError:
        raise ImageError(f"{name}: not enough memory for it") from None
    except Exception as error:  # decoders raise nearly anything on damaged data
        raise ImageError(f"{name}: damaged image ({first_line(error)})") from None


def load_fitted(source: ImageLike, size: tuple[int, int]) -> tuple[np.ndarray, tuple[int, int]]:
    """load_image's, resized to size, (height, width): (H, W, 3) uint8; and the width and height it had.

    Raises ImageError, also for a picture so long that the resize would take more than RESIZE_BYTES.
    """
    image = load_image(source)
    return fitted(image, size, name_of(source)), image.size


def fitted(image: Image.Image, size: tuple[int, int], name: str) -> np.ndarray:
    """What load_fitted makes of load_image's picture; errors call it `name`."""
    height, width = size
    # The picture between the two steps, and Pillow's weights: 4 doubles for each row or column that is reduced.
    needed = 4 * width * image.height + 4 * 8 * max(image.size)
    shape = f"{image.width}x{image.height} pixels"
    if needed > RESIZE_BYTES:
        raise ImageError(f"{name}: {shape} take {needed / 1e6:,.0f} MB to resize; a word is not that long")
    try:
        across = image.resize((width, image.height), Image.Resampling.BICUBIC)
        return np.asarray(across.resize((width, height), Image.Resampling.BICUBIC))
    except MemoryError:
        raise ImageError(f"{name}: not enough memory to resize {shape}") from None


def plain_pixels(array: np.ndarray) -> np.ndarray | None:
    """load_image's pixels, (H, W, 3) uint8, without a copy, of an array that is RGB or grey; None of another one.

    Raises ImageError as load_image does."""
    _check_array(array, None)
    if array.dtype != np.uint8 or (array.ndim == 3 and array.shape[2] in (2, 4)):
        return None
    three = array[..., None] if array.ndim == 2 else array
    return np.broadcast_to(three, (*array.shape[:2], 3))


def prepare(images: Sequence[ImageLike], size: tuple[int, int], normalization: str = "half") -> np.ndarray:
    """Images -> (N, 3, H, W) float32, normalised. size: (height, width). Raises ImageError, with the image's index."""
    pictures = []
    for index, source in enumerate(images):
        try:
            pictures.append(load_fitted(source, size)[0])
        except ImageError as error:
            error.index = index
            raise
    return normalized(pictures, size, normalization)


def normalized(pictures: Sequence[np.ndarray], size: tuple[int, int], normalization: str) -> np.ndarray:
    """load_fitted's pictures -> (N, 3, H, W) float32."""
    pixels = np.empty((len(pictures), *size, 3), np.float32)
    for row, picture in zip(pixels, pictures):
        row[:] = picture
    mean, std = (np.asarray(v, np.float32) for v in NORMALIZATION[normalization])
    pixels /= 255
    pixels -= mean
    pixels /= std
    return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))


def is_file_like(source: object) -> bool:
    """Opened, and to be read from?"""
    return callable(getattr(source, "read", None))


def name_of(source: Any) -> str:
    """What errors call it."""
    if isinstance(source, np.ndarray):
        return "<array>"
    if isinstance(source, (str, os.PathLike)):
        return os.fsdecode(source)
    named = getattr(source, "name", None) if is_file_like(source) else None
    return named if isinstance(named, str) else f"<{type(source).__name__}>"


def _openable(source: Any, name: str) -> Any:
    """What Pillow opens: a path that was found to be a regular file, or an open file. Raises ImageError."""
    if isinstance(source, (str, os.PathLike)):
        return _regular_file(source, name)
    if isinstance(source, (bytes, bytearray, memoryview)):
        source = io.BytesIO(bytes(source))
    if isinstance(source, io.TextIOBase):
        raise ImageError(f"{name}: opened as text; open it in binary, mode 'rb'")
    if not is_file_like(source):
        raise ImageError(f"{name}: a {type(source).__name__} is not an image; taken are {TAKEN}")
    if getattr(source, "closed", False):
        raise ImageError(f"{name}: the file is closed")
    if not (callable(getattr(source, "seekable", None)) and source.seekable()):
        source = io.BytesIO(source.read(PICTURE_BYTES))
    source.seek(0)
    start = source.read(1)
    if not isinstance(start, bytes):
        raise ImageError(f"{name}: opened as text; open it in binary, mode 'rb'")
    if not start:
        raise ImageError(f"{name}: the file is empty")
    return source


def _regular_file(path: str | os.PathLike[str], name: str) -> str | os.PathLike[str]:
    """The path. Pipes and devices are not opened: that could wait for ever. Raises ImageError."""
    try:
        found = os.stat(path)  # noqa: PTH116  (takes what Path would have to copy)
    except FileNotFoundError:
        raise ImageError(f"{name}: no such file") from None
    except PermissionError:
        raise ImageError(f"{name}: permission denied") from None
    except (OSError, ValueError) as error:
        raise ImageError(f"{name}: cannot be opened ({getattr(error, 'strerror', None) or error})") from None
    if stat.S_ISDIR(found.st_mode):
        raise ImageError(f"{name}: is a folder, not an image")
    if not stat.S_ISREG(found.st_mode):
        raise ImageError(f"{name}: a pipe or a device, not an image file; what comes through a pipe is read by: read -")
    if not found.st_size:
        raise ImageError(f"{name}: the file is empty")
    if not os.access(path, os.R_OK):
        raise ImageError(f"{name}: permission denied")
    return path


def _channels(array: np.ndarray) -> int:
    return 1 if array.ndim == 2 else array.shape[2] if array.ndim == 3 else 0


def _check_array(array: np.ndarray, before: Callable[[int], None] | None) -> None:
    channels = _channels(array)
    if array.dtype not in (np.uint8, np.bool_) or channels not in _CHANNELS:
        raise ImageError(
            f"<array>: expected uint8 of shape (H, W, 3), RGB, or (H, W) or (H, W, 1 to 4), got {array.dtype} of "
            f"shape {array.shape}"
        )
    check_size((array.shape[1], array.shape[0]), "<array>")
    if before is not None:
        before(array.shape[0] * array.shape[1])


def _from_array(array: np.ndarray) -> Image.Image:
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * np.uint8(255)
    flat = array[..., 0] if array.ndim == 3 and _channels(array) == 1 else array
    return Image.fromarray(np.ascontiguousarray(flat))  # which knows the four kinds by their shapes


def _to_rgb(
    image: Image.Image, name: str, before: Callable[[int], None] | None = None, ours: bool = False
) -> Image.Image:
    """ours: opened here, so that it may be changed."""
    check_size(image.size, name)
    check_scans(image, name)
    if before is not None:
        before(image.width * image.height)
    image.load()
    image = _upright(image, ours)
    if image.mode == "F":
        raise ImageError(f"{name}: floating-point pixels; save it with 8 or 16 bits a channel")
    if image.mode.startswith("I"):
        scale = 257 if image.mode.startswith("I;16") or _largest(image) > 255 else 1  # 65535 -> 255
        return _by_strips(image, lambda strip: _to_eight_bits(strip, scale))
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        ground = _ground(image)
        return _by_strips(image, lambda strip: _on_ground(strip, ground))
    return image if image.mode == "RGB" else _by_strips(image, lambda strip: strip.convert("RGB"))


def _upright(image: Image.Image, ours: bool) -> Image.Image:
    try:
        if not ours:
            return ImageOps.exif_transpose(image)
        ImageOps.exif_transpose(image, in_place=True)
    except MemoryError:
        raise
    except Exception:  # the picture is good, only its EXIF is damaged
        pass
    return image


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """(top, rows from there on), of about _STRIP_PIXELS; of most pictures the picture."""
    rows = max(1, _STRIP_PIXELS // image.width)
    if rows >= image.height:
        yield 0, image
        return
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _by_strips(image: Image.Image, convert: Callable[[Image.Image], Image.Image]) -> Image.Image:
    """convert, to RGB, of the whole picture."""
    whole: Image.Image | None = None
    for top, strip in _strips(image):
        converted = convert(strip)
        if converted.size == image.size:
            return converted
        whole = whole or Image.new("RGB", image.size)
        whole.paste(converted, (0, top))
    assert whole is not None
    return whole


def _largest(image: Image.Image) -> int:
    return max(int(np.asarray(strip).max()) for _, strip in _strips(image))


def _to_eight_bits(image: Image.Image, scale: int) -> Image.Image:
    values = np.asarray(image).astype(np.float64) / scale
    return Image.fromarray(np.clip(values, 0, 255).round().astype(np.uint8)).convert("RGB")


def _ground(image: Image.Image) -> str:
    """White, or black where what is visible of a picture with transparency is nearer to white."""
    opacity = light = 0
    for _, strip in _strips(image):
        colours = strip.convert("RGBA")
        seen = np.asarray(colours.getchannel("A")).astype(np.int64)
        opacity += int(seen.sum())
        light += int((seen * np.asarray(colours.convert("L"))).sum())
    return "black" if light > 127.5 * opacity else "white"


def _on_ground(image: Image.Image, ground: str) -> Image.Image:
    return Image.alpha_composite(Image.new("RGBA", image.size, ground), image.convert("RGBA")).convert("RGB")
