"""From the element's start to its stop: pictures are copied out of buffers, and read on Reading's thread."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from clip4str.core.errors import ImageError

from ..frames import Frame
from . import metadata
from .feed import Feed, Timing
from .introspection import Gst, GstVideo
from .messages import structure
from .pictures import pixels
from .properties import Value
from .reading import Reading
from .settings import open_reader


class Session:
    """tell: gets each event's structure, failed: what ended the reading; on a thread of their own.

    Raises ImportError, Clip4StrError.
    """

    def __init__(
        self, values: Mapping[str, Value], tell: Callable[[Gst.Structure], None],
        failed: Callable[[BaseException], None],
    ) -> None:  # fmt: skip
        reader = open_reader(values)
        self._analytics = metadata.analytics() if values["metadata"] else None
        self._info: Any = None
        self._segment: Any = None
        self._index = 0
        self._feed = Feed(bool(values["wait"]))
        self._reading = Reading(reader, self._feed, lambda event, timing: tell(structure(event, timing)), failed)

    @property
    def writes(self) -> bool:
        """Do buffers get metadata? Those that others hold have to be copied for it; pixels are shared."""
        return self._analytics is not None

    @property
    def ended(self) -> bool:
        return self._reading.ended

    def close(self) -> None:
        self._reading.close()

    def pause(self, paused: bool) -> None:
        self._feed.pause(paused)

    def let_go(self) -> None:
        """Nobody waits here any more."""
        self._feed.shut()

    def set_caps(self, caps: Gst.Caps) -> bool:
        self._info = info = GstVideo.VideoInfo.new_from_caps(caps)
        if info is not None:
            self._feed.rate = info.fps_n / info.fps_d if info.fps_n and info.fps_d else None
        return info is not None

    def event(self, event: Gst.Event) -> None:
        """Before it is passed on."""
        if event.type == Gst.EventType.SEGMENT:
            self._segment = event.parse_segment().copy()
        elif event.type == Gst.EventType.FLUSH_START:
            self._feed.interrupt()
        elif event.type == Gst.EventType.FLUSH_STOP:
            self._feed.cut()
            self._feed.resume()
        elif event.type == Gst.EventType.EOS:
            self._feed.cut()
            self._feed.settle()  # what was seen is told before the end is

    def look(self, buffer: Gst.Buffer) -> None:
        """Raises ImageError for a buffer without a picture or time; Gst.MapError."""
        time, duration, timing = self._when(buffer)
        self._index += 1
        if time is None or buffer.has_flags(Gst.BufferFlags.DECODE_ONLY):  # will not be shown
            return
        info, meta = self._info, GstVideo.buffer_get_video_meta(buffer)
        strides, offsets = (meta.stride, meta.offset) if meta is not None else (info.stride, info.offset)
        with buffer.map(Gst.MapFlags.READ) as mapped:
            data = np.frombuffer(mapped.data, np.uint8)
            picture, layout = pixels(data, info.finfo.name, info.width, info.height, strides, offsets)
        damaged = buffer.has_flags(Gst.BufferFlags.CORRUPTED)
        self._feed.put(Frame(picture, time, self._index - 1, layout, duration, damaged), timing)
        if self._analytics is not None:
            metadata.attach(self._analytics, buffer, self._reading.words(time))

    def _when(self, buffer: Gst.Buffer) -> tuple[float | None, float | None, Timing]:
        """Seconds of running time, None outside of the segment; how long, None where that is not known."""
        segment = self._segment
        if buffer.pts == Gst.CLOCK_TIME_NONE or segment is None or segment.format != Gst.Format.TIME:
            raise ImageError("buffers have no time stamps: a demuxer, parser or videorate before this sets them")
        running = segment.to_running_time(Gst.Format.TIME, buffer.pts)
        if running == Gst.CLOCK_TIME_NONE:
            return None, None, Timing()
        time, rate = running / Gst.SECOND, segment.rate * segment.applied_rate
        duration = None if buffer.duration == Gst.CLOCK_TIME_NONE else buffer.duration / Gst.SECOND / abs(segment.rate)
        stream = segment.to_stream_time(Gst.Format.TIME, buffer.pts)
        return time, duration, Timing(rate, stream / Gst.SECOND - rate * time)
