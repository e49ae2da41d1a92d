"""Images that a build's parity check reads: the user's word crops, or the bundled ones."""

from __future__ import annotations

import re
from pathlib import Path

from PIL import Image

from clip4str.core.errors import UsageError
from clip4str.runtime.images import load_image
from clip4str.runtime.read_command import IMAGE_SUFFIXES

BUNDLED_CROPS = Path(__file__).resolve().parent / "sample_crops"
_NUMBERED = re.compile(r"\d+-(.+)")


def sample_images(folder: Path | None = None) -> list[Image.Image]:
    """RGB images: those of `folder` in order of name, else the bundled crops.

    Raises UsageError if there are none, ImageError if one of them cannot be read.
    """
    if folder is not None and not folder.is_dir():
        raise UsageError(f"{folder}: no such folder of sample images")
    crops = folder or BUNDLED_CROPS
    images = [load_image(path) for path in _paths(crops)]
    if not images:
        raise UsageError(f"{crops}: no images in it; name a folder of word crops with --sample-images")
    return images


def sample_labels(folder: Path | str | None = None) -> list[str | None]:
    """What the same images say, where their names tell."""
    return [label_in(path.stem) for path in _paths(Path(folder) if folder else BUNDLED_CROPS)]


def label_in(stem: str) -> str | None:
    """Of a name of the form NUMBER-LABEL."""
    match = _NUMBERED.fullmatch(stem)
    return match[1] if match else None


def _paths(crops: Path) -> list[Path]:
    paths = sorted(crops.iterdir()) if crops.is_dir() else []
    return [path for path in paths if path.suffix.lower() in IMAGE_SUFFIXES]
