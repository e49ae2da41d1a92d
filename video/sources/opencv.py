"""Video files, addresses and cameras by OpenCV: turned upright by it, times from the container."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from clip4str.core.errors import SourceError, first_line

from .base import QUICKLY, Picture, check_size, silent

OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"  # of the environment: OpenCV knows no other way to FFmpeg's options
USUAL = (
    "rtsp_flags;prefer_tcp|reconnect;1"  # the first is OpenCV's own. A file on a server is read on where it broke off
)
QUICK = "|".join([USUAL, *(f"{name};{value}" for name, value in QUICKLY.items())])


class OpenCV:
    """A Decoder. uri: a path, an address, or a camera's number. timeout: seconds to wait for a connection, and for
    data. threads: of the decoder, None for OpenCV's choice. quick: see open_decoder."""

    def __init__(
        self, uri: str | int, name: str, timeout: float, threads: int | None = None, quick: bool = False
    ) -> None:  # fmt: skip
        self.name, self.dropped, self._timeout = name, 0, timeout
        cv2 = _cv2(name)
        self._cv2 = cv2
        if isinstance(uri, int):
            api, how = cv2.CAP_ANY, []
        else:  # named: its other back ends would read patterns of images, or write the address into the log
            milliseconds = max(1, round(timeout * 1000))
            how = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, milliseconds, cv2.CAP_PROP_READ_TIMEOUT_MSEC, milliseconds]
            api, how = cv2.CAP_FFMPEG, [*how, cv2.CAP_PROP_N_THREADS, threads] if threads else how
        with _silent(cv2), _options.of(quick):
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
            asked = time.monotonic()
            try:
                good, pixels = self._capture.read()
            except self._cv2.error as error:
                raise SourceError(f"{self.name}: cannot be decoded on ({first_line(error)})") from None
            if time.monotonic() - asked >= self._timeout:
                raise SourceError(f"{self.name}: {silent(self._timeout)}")
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


class _Options:
    """OPTIONS as one opening wants them: those that want the same go together, others wait for them. A user's own are
    left alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()  # guards all that follows
        self._opening, self._value = 0, ""

    @contextmanager
    def of(self, quick: bool) -> Iterator[None]:
        value = QUICK if quick else USUAL
        with self._changed:
            self._changed.wait_for(lambda: not self._opening or self._value == value)
            if os.environ.get(OPTIONS, "") in ("", USUAL, QUICK):
                os.environ[OPTIONS] = value
            self._opening, self._value = self._opening + 1, value
        try:
            yield
        finally:
            with self._changed:
                self._opening -= 1
                self._changed.notify_all()


_options = _Options()


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
