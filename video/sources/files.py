"""Video files and addresses: which decoder, and what is wrong where none can."""

from __future__ import annotations

import importlib.util
import struct
from pathlib import Path

from clip4str.core.errors import SourceError, UsageError

from .base import Decoder
from .opencv import OpenCV
from .pyav import PyAV

BACKENDS = ("auto", "opencv", "av")


def open_decoder(
    uri: str, name: str, backend: str, timeout: float, threads: int | None, quick: bool = False
) -> Decoder:  # fmt: skip
    """backend "auto": PyAV where it is installed, as only it marks damaged frames, else OpenCV. quick: do not find out
    the frame rate, for which FFmpeg decodes 20 frames, and how frames are reordered, for which it decodes 7: seconds of
    a slow camera. Raises SourceError; Sizeless where a
    stream does not tell its size at once."""
    if backend not in BACKENDS:
        raise UsageError(f"backend is 'auto', 'opencv' or 'av', of a video file also 'nvcodec', not {backend!r}")
    if backend == "av" or (backend == "auto" and importlib.util.find_spec("av")):
        return PyAV(uri, name, timeout, threads, quick)
    return OpenCV(uri, name, timeout, threads, quick)


def open_file(path: Path, name: str, backend: str, timeout: float, threads: int | None) -> Decoder:
    """As open_decoder, with a reason that the file itself tells. Raises SourceError."""
    check_file(path, name)
    try:
        return open_decoder(str(path.absolute()), name, backend, timeout, threads)  # "a://b" is a path, too
    except SourceError:
        if _cut_off(path):
            raise SourceError(f"{name}: cut off: an MP4 file whose index, its last part, is not all there") from None
        raise


def check_file(path: Path, name: str) -> None:
    """Raises SourceError where there is nothing to read."""
    try:
        with path.open("rb") as file:
            if not file.read(1):
                raise SourceError(f"{name}: the file is empty")
    except FileNotFoundError:
        raise SourceError(f"{name}: no such file") from None
    except OSError as error:
        raise SourceError(f"{name}: cannot be read ({error.strerror})") from None


def _cut_off(path: Path) -> bool:
    """Of an MP4 file: an outermost box goes beyond its end, or the index ("moov") is not there."""
    length, at = path.stat().st_size, 0
    with path.open("rb") as file:
        for _ in range(1000):
            file.seek(at)
            head = file.read(16)
            if at == 0 and head[4:8] != b"ftyp":
                return False
            size, kind = struct.unpack(">I4s", head[:8]) if len(head) >= 8 else (0, b"")
            if size == 1 and len(head) == 16:
                size = struct.unpack(">Q", head[8:])[0]
            at += size
            if size < 8 or at > length:
                return True
            if kind == b"moov":
                return False
    return False
