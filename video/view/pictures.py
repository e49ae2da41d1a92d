"""The newest picture of each source, with its words: encoded when somebody asks, once for all who do."""

from __future__ import annotations

import json
import struct
import threading
import time
from collections.abc import Sequence

import numpy as np

from clip4str.core.errors import Clip4StrError
from clip4str.core.rectify import rectified

from ..events import Shown
from ..frames import Frame, rgb

RATE = 10.0  # pictures a second at most, of a source
SIDE, QUALITY = 1280, 75  # pixels of the longer side at most, and JPEG's quality
CROP, CROP_QUALITY = (320, 72), 85  # pixels of a word's picture, width and height at most
Words = Sequence[Shown]


class Pictures:
    """sources: how many. `show` keeps one frame of each, and costs as much as that; encoding is on the thread that
    asks, so that a reader whom nobody watches, or a slow viewer does, is not slower for it."""

    def __init__(self, sources: int) -> None:
        self._channels = [_Channel() for _ in range(sources)]
        self._closed = threading.Event()

    def show(self, source: int, frame: Frame, words: Words) -> None:
        """The next frame. words: Stream.shown's."""
        channel = self._channels[source]
        with channel.change:
            channel.number += 1
            channel.newest = frame, words
            channel.change.notify_all()

    def cut(self, source: int, track: int) -> bytes | None:
        """A word as it looks in the newest frame, JPEG; None where it is not in there."""
        newest = self._channels[source].newest
        quad = next((word.quad for word in newest[1] if word.track == track), None) if newest else None
        if newest is None or quad is None:
            return None
        frame = newest[0]
        try:
            crop = next(rectified(frame.pixels, np.asarray(quad, np.float32)[None], **frame.colour))
        except Clip4StrError:  # bent too far
            return None
        return jpeg(crop, CROP, CROP_QUALITY)

    def newer(self, source: int, after: int, timeout: float) -> bytes | None:
        """A picture with a number over `after`, as `packed` has it, waiting so many seconds for it; None where none
        comes."""
        channel = self._channels[source]
        with channel.change:
            if not channel.change.wait_for(lambda: self._closed.is_set() or channel.number > after, timeout):
                return None
        with channel.encoding:
            if channel.encoded is None or channel.encoded[0] <= after:
                if self._closed.wait(max(0.0, channel.due - time.monotonic())):
                    return None
                with channel.change:
                    number, newest = channel.number, channel.newest
                assert newest is not None
                channel.encoded = number, packed(number, *newest)
                channel.due = time.monotonic() + 1 / RATE
            return channel.encoded[1]

    def close(self) -> None:
        """Nobody waits any more, and no frame is kept."""
        self._closed.set()
        for channel in self._channels:
            with channel.change:
                channel.change.notify_all()


class _Channel:
    def __init__(self) -> None:
        self.change, self.encoding = threading.Condition(), threading.Lock()
        self.number, self.due = 0, 0.0
        self.newest: tuple[Frame, Words] | None = None
        self.encoded: tuple[int, bytes] | None = None


def packed(number: int, frame: Frame, words: Words) -> bytes:
    """A picture and its words in one, so that they fit: the length of what follows as four bytes, big-endian, a JSON
    object, a JPEG; none of a frame that cannot be had here. Quads are in pixels of the frame, whose size the object
    has."""
    height, width = frame.size
    told = [
        {"track": word.track, "text": word.text, "confidence": round(float(word.confidence), 4),
         "settled": bool(word.settled), "quad": np.round(np.nan_to_num(np.asarray(word.quad, float)), 1).tolist()}
        for word in words
    ]  # fmt: skip
    head = json.dumps({"number": number, "time": frame.time, "width": width, "height": height, "words": told}).encode()
    try:
        data = jpeg(rgb(frame), (SIDE, SIDE), QUALITY)
    except Clip4StrError:
        data = b""
    return struct.pack(">I", len(head)) + head + data


def jpeg(pixels: np.ndarray, most: tuple[int, int], quality: int) -> bytes:
    """pixels: uint8 (H, W, 3) RGB; shrunk into `most`, (width, height), where it is larger."""
    import cv2

    height, width = pixels.shape[:2]
    scale = min(1.0, most[0] / width, most[1] / height)
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        pixels = cv2.resize(pixels, size, interpolation=cv2.INTER_AREA)
    good, data = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert good
    return data.tobytes()
