"""Video files and addresses by PyAV: exact times, damaged frames marked. Opt-in: its wheel holds GPL codecs."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import numpy as np

from clip4str.core.errors import SourceError, first_line

from .base import MAX_PIXELS, QUICKLY, Picture, check_size, silent
from .names import scheme


class PyAV:
    """A Decoder; as OpenCV, of paths and addresses. threads: None for FFmpeg's choice. quick: see open_decoder."""

    def __init__(
        self, uri: str, name: str, timeout: float, threads: int | None = None, quick: bool = False
    ) -> None:  # fmt: skip
        self.name, self.dropped, self._timeout = name, 0, timeout
        try:
            import av
        except ImportError:
            raise SourceError(f"{name}: backend='av' needs PyAV: pip install 'clip4str[av]'") from None
        self._av = av
        options = dict(QUICKLY) if quick else {}
        if scheme(uri) in ("rtsp", "rtsps"):
            options["rtsp_transport"] = "tcp"
        if scheme(uri) in ("http", "https"):
            options["reconnect"] = "1"  # a file is read on where it broke off; streams are not, by it
        try:
            self._container = av.open(uri, timeout=(timeout, timeout), options=options, metadata_errors="replace")
        except (av.FFmpegError, OSError, ValueError) as error:
            raise SourceError(f"{name}: cannot be opened ({said(error)})") from None
        try:
            self._stream = self._best()
            self._set_up(threads)
        except SourceError:
            self.close()
            raise

    def _best(self) -> Any:
        stream = self._container.streams.best("video")
        if stream is None:
            raise SourceError(f"{self.name}: has no video stream")
        return stream

    def _set_up(self, threads: int | None) -> None:
        stream, context = self._stream, self._stream.codec_context
        if context is None:
            raise SourceError(f"{self.name}: this PyAV has no decoder for its video")
        check_size(self.name, (context.height, context.width))
        context.options = {"max_pixels": str(MAX_PIXELS)}  # a later frame may be larger than the header says
        context.thread_type = "SLICE" if threads == 1 else "AUTO"
        context.thread_count = threads or 0
        self.rate = float(stream.average_rate or 0) or None
        self.frames = stream.frames or None
        if self.frames is None and stream.duration and self.rate:
            self.frames = round(float(stream.duration * stream.time_base) * self.rate) or None

    def pictures(self) -> Iterator[Picture]:
        av, lost, asked = self._av, False, time.monotonic()
        try:
            for packet in self._container.demux(self._stream):
                if time.monotonic() - asked >= self._timeout:
                    raise SourceError(f"{self.name}: {silent(self._timeout)}")
                try:
                    frames = packet.decode()
                except av.InvalidDataError:
                    lost, frames = True, []
                for frame in frames:
                    yield self._picture(frame, lost)
                    lost = False
                asked = time.monotonic()
        except (av.FFmpegError, OSError, ValueError) as error:
            raise SourceError(f"{self.name}: cannot be read on ({said(error)})") from None

    def _picture(self, frame: Any, lost: bool) -> Picture:
        check_size(self.name, (frame.height, frame.width))
        pixels = frame.to_ndarray(format="bgr24")
        quarters = round(frame.rotation / 90) % 4  # counter-clockwise
        if quarters:
            pixels = np.ascontiguousarray(np.rot90(pixels, quarters))
        base = frame.time_base
        when = float(frame.pts * base) if frame.pts is not None and base else None
        duration = float(frame.duration * base) if frame.duration and base else None
        return Picture(pixels, when, duration, frame.is_corrupt or lost)

    def close(self) -> None:
        self._container.close()


def said(error: Exception) -> str:
    """What FFmpeg says, without the address that it was said about."""
    reason = getattr(error, "strerror", None)
    return first_line(reason) if reason else type(error).__name__
