"""Video files, addresses and cameras by OpenCV: turned upright by it, times from the container."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from clip4str.core.errors import SourceError, first_line

from .base import Picture, check_size


class OpenCV:
    """A Decoder. uri: a path, an address, or a camera's number. timeout: seconds to wait for a connection, and for
    data. threads: of the decoder, None for OpenCV's choice."""

    def __init__(self, uri: str | int, name: str, timeout: float, threads: int | None = None) -> None:
        self.name, self.dropped = name, 0
        cv2 = _cv2(name)
        self._cv2 = cv2
        if isinstance(uri, int):
            api, how = cv2.CAP_ANY, []
        else:  # named: its other back ends would read patterns of images, or write the address into the log
            milliseconds = max(1, round(timeout * 1000))
            how = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, milliseconds, cv2.CAP_PROP_READ_TIMEOUT_MSEC, milliseconds]
            api, how = cv2.CAP_FFMPEG, [*how, cv2.CAP_PROP_N_THREADS, threads] if threads else how
        with _silent(cv2):
            self._capture = cv2.VideoCapture(uri, api, how)
        if not self._capture.isOpened():
            raise SourceError(f"{name}: {_why(uri)}")
        height, width, rate, frames = (
            self._capture.get(each)
            for each in (
                cv2.CAP_PROP_FRAME_HEIGHT,
                cv2.CAP_PROP_FRAME_WIDTH,
                cv2.CAP_PROP_FPS,
                cv2.CAP_PROP_FRAME_COUNT,
            )
        )
        self.rate = rate if 0 < rate <= 1000 else None
        self.frames = int(frames) if 0 < frames < 2**40 else None
        try:
            check_size(name, (int(height), int(width)))
        except SourceError:
            self.close()
            raise

    def pictures(self) -> Iterator[Picture]:
        while True:
            try:
                good, pixels = self._capture.read()
            except self._cv2.error as error:
                raise SourceError(f"{self.name}: cannot be decoded on ({first_line(error)})") from None
            if not good:
                return
            check_size(self.name, pixels.shape[:2])
            yield Picture(pixels, self._capture.get(self._cv2.CAP_PROP_POS_MSEC) / 1000)

    def close(self) -> None:
        self._capture.release()


def _cv2(name: str) -> Any:
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")  # read at the first opening: its lines hold addresses
    try:
        import cv2
    except ImportError:
        raise SourceError(f"{name}: reading video needs OpenCV: pip install 'clip4str[video]'") from None
    return cv2


@contextmanager
def _silent(cv2: Any) -> Iterator[None]:
    """Without OpenCV's own lines on stderr about what cannot be opened."""
    level = cv2.utils.logging.getLogLevel()
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        yield
    finally:
        cv2.utils.logging.setLogLevel(level)


def _why(uri: str | int) -> str:
    if isinstance(uri, int):
        return "no camera there that can be opened"
    if "://" in uri:
        return "cannot be opened: nobody there in time, no access, or no video"
    return "no video in it that OpenCV can decode: cut off, damaged, or another kind of file"
