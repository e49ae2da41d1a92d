"""Word images to time with: yours, or digits drawn on a blank."""

from __future__ import annotations

import io
from itertools import islice
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from clip4str.benchmarks.lmdb_words import LmdbWords
from clip4str.runtime import DataError
from clip4str.runtime.images import ImageLike, load_image
from clip4str.runtime.read_command import expand

_MOST = 512


def word_images(source: Path | None) -> list[np.ndarray]:
    """Word crops as (H, W, 3) uint8 RGB: the first 512 of an LMDB set, of a folder of image files, or drawn
    ones."""
    if source is None:
        return [_drawn(number) for number in range(64)]
    encoded: list[ImageLike]
    if (source / "data.mdb").is_file():
        with LmdbWords(source) as words:
            encoded = [image for image, _ in islice(words, _MOST)]
    else:
        encoded = [path for _, path in islice(expand([str(source)]), _MOST)]
    if not encoded:
        raise DataError(f"{source}: no images in it")
    return [np.asarray(load_image(image)) for image in encoded]


def _drawn(number: int) -> np.ndarray:
    """Six digits, dark on light, encoded once as JPEG so that pixels are as noisy as a photo's."""
    image = Image.new("RGB", (128, 40), (225, 220, 210))
    font = ImageFont.load_default(28)
    ImageDraw.Draw(image).text((14, 2), f"{number * 7919 % 1_000_000:06d}", (40, 35, 60), font)
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=80)
    return np.asarray(Image.open(buffer))
