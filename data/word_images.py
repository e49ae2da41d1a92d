"""Word images to time with: yours, or the bundled crops."""

from __future__ import annotations

from itertools import islice
from pathlib import Path

import numpy as np

from clip4str.core.errors import DataError
from clip4str.data.word_lmdb import LmdbWords
from clip4str.export.parity_images import BUNDLED_CROPS
from clip4str.runtime.images import ImageLike, load_image
from clip4str.runtime.read_command import expand

_MOST = 512


def word_images(source: Path | None) -> list[np.ndarray]:
    """Word crops as (H, W, 3) uint8 RGB: the first 512 of an LMDB set or of a folder of image files, or the bundled
    ones."""
    source = source or BUNDLED_CROPS
    encoded: list[ImageLike]
    if (source / "data.mdb").is_file():
        with LmdbWords(source) as words:
            encoded = [image for image, _ in islice(words, _MOST)]
    else:
        encoded = [path for _, path in islice(expand([str(source)]), _MOST)]
    if not encoded:
        raise DataError(f"{source}: no images in it")
    return [np.asarray(load_image(image)) for image in encoded]
