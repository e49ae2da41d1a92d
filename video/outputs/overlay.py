"""The video again, with every word's outline and text (.mp4)."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clip4str.core.errors import UsageError
from clip4str.core.output_files import MP4_MARK, check_output

from ..events import Event, Shown
from ..frames import Frame
from .drawing import annotated

STILL, LONGEST = 10.0, 600.0  # seconds that a live source's and a file's frame is repeated at most


class Overlay:
    """Frames are given by `show`; `write` is there for a Sink's sake, and does nothing. The file appears at the end.

    OpenCV writes constant rates alone: at each 1/rate of the source's time the file has the frame that was shown then,
    which repeats slow frames and leaves out fast ones. So its times are the source's, to half a frame; but where a live
    source breaks off for longer than STILL, the rest of that time is cut. Frames of another size are fitted into the
    first one's.

    rate: frames a second, None for 25. Raises UsageError where the file cannot be written.
    """

    def __init__(self, file: Path, rate: float | None = None) -> None:
        check_output(file, (".mp4",))
        self.file, self.rate = file, min(max(rate or 25.0, 1.0), 120.0)
        self.partial = file.with_name(f".{file.stem}.tmp-{os.getpid()}{file.suffix}")
        self._writer: Any = None
        self._size = (0, 0)
        self._pending: np.ndarray | None = None
        self._begin = self._cut = 0.0
        self._duration: float | None = None
        self._written = 0

    def write(self, event: Event) -> None:
        pass

    def show(self, frame: Frame, words: Sequence[Shown]) -> None:
        """The next frame, and the words in it."""
        self._until(frame.time)
        self._pending = self._fitted(annotated(frame, words))
        self._begin, self._duration = frame.time, frame.duration

    def close(self) -> None:
        if self._pending is not None:
            self._until(self._begin + (self._duration or 1 / self.rate))
            if self._written == 0:
                self._writer.write(self._pending)
        self._pending = None
        if self._writer is not None:
            self._writer.release()
            self._writer = None
            try:
                with self.partial.open("ab") as written:
                    written.write(MP4_MARK)
                os.replace(self.partial, self.file)
            except OSError as error:
                self.partial.unlink(missing_ok=True)
                raise UsageError(f"{self.file}: cannot be written ({error.strerror})") from None

    def _until(self, time: float) -> None:
        """The pending frame, as often as it was shown until then."""
        if self._pending is None:
            return
        most = STILL if self._duration is None else min(self._duration, LONGEST)
        self._cut += max(0.0, time - self._begin - most)
        wanted = round((time - self._cut) * self.rate)
        for _ in range(self._written, wanted):
            self._writer.write(self._pending)
        self._written = max(self._written, wanted)

    def _fitted(self, pixels: np.ndarray) -> np.ndarray:
        """BGR of the file's size; the first frame opens the file."""
        import cv2

        if self._writer is None:
            height, width = (side // 2 * 2 for side in pixels.shape[:2])
            self._size = (height, width)
            self._writer = cv2.VideoWriter(
                str(self.partial), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), self.rate, (width, height)
            )
            if not self._writer.isOpened():
                self._writer = None
                raise UsageError(f"{self.file}: OpenCV cannot write a video of {width}x{height} pixels there")
        height, width = self._size
        if pixels.shape[0] - height in (0, 1) and pixels.shape[1] - width in (0, 1):
            return cv2.cvtColor(pixels[:height, :width], cv2.COLOR_RGB2BGR)
        scale = min(height / pixels.shape[0], width / pixels.shape[1])
        inner = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
        out = np.zeros((height, width, 3), np.uint8)
        top, left = (height - inner[1]) // 2, (width - inner[0]) // 2
        small = cv2.resize(pixels, inner, interpolation=cv2.INTER_AREA)
        out[top : top + inner[1], left : left + inner[0]] = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
        return out
