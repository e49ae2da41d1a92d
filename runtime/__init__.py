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
    UnsafeCheckpointError,
    UsageError,
)
from clip4str.core.reading import Decoding, Stats

from .recognizer import Recognizer, Word

__all__ = [
    "BackendError",
    "BundleError",
    "CharsetError",
    "CheckpointError",
    "Clip4StrError",
    "DataError",
    "Decoding",
    "ImageError",
    "ParityError",
    "Recognizer",
    "Stats",
    "UnsafeCheckpointError",
    "UsageError",
    "Word",
]
