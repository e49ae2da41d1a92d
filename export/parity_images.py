"""Images that a build's parity check reads: the user's word crops, or the bundled ones."""

from __future__ import annotations

from pathlib import Path

from PIL import Image

from clip4str.core.errors import UsageError
from clip4str.runtime.images import load_image
from clip4str.runtime.read_command import IMAGE_SUFFIXES

BUNDLED_CROPS = Path(__file__).resolve().parent / "sample_crops"


def sample_images(folder: Path | None = None) -> list[Image.Image]:
    """RGB images: those of `folder` in order of name, else the bundled crops.

    Raises UsageError if there are none, ImageError if one of them cannot be read.
    """
    if folder is not None and not folder.is_dir():
        raise UsageError(f"{folder}: no such folder of sample images")
    crops = folder or BUNDLED_CROPS
    paths = sorted(crops.iterdir()) if crops.is_dir() else []
    images = [load_image(path) for path in paths if path.suffix.lower() in IMAGE_SUFFIXES]
    if not images:
        raise UsageError(f"{crops}: no images in it; name a folder of word crops with --sample-images")
    return images
