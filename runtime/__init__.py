"""Thin runtime: images in, words out over a bundle. numpy, Pillow and one backend; never torch."""

from clip4str.core.errors import (
    BackendError,
    BundleError,
    CharsetError,
    CheckpointError,
    Clip4StrError,
    DataError,
    ImageError,
    ParityError,
    SourceError,
    UnsafeCheckpointError,
    UsageError,
)
from clip4str.core.reading import Decoding, Stats

from .frames import FrameQuads, frame_size
from .images import IMAGE_SUFFIXES, load_image
from .recognizer import Recognizer, Word

__all__ = [
    "IMAGE_SUFFIXES",
    "BackendError",
    "BundleError",
    "CharsetError",
    "CheckpointError",
    "Clip4StrError",
    "DataError",
    "Decoding",
    "FrameQuads",
    "ImageError",
    "ParityError",
    "Recognizer",
    "SourceError",
    "Stats",
    "UnsafeCheckpointError",
    "UsageError",
    "Word",
    "frame_size",
    "load_image",
]
