"""A reader's events as element messages' structures, with typed fields. docs/gstreamer.md has the table."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..events import Event
from .feed import Timing
from .introspection import GObject, Gst, GstVideo

TIMES = {"time": "time", "start": "start", "end": "end", "seconds": "time"}  # by the events' fields


def name_of(event: Event) -> str:
    """clip4str-word-ended of a WordEnded."""
    return "clip4str" + "".join(f"-{c.lower()}" if c.isupper() else c for c in type(event).__name__)


def structure(event: Event, timing: Timing) -> Gst.Structure:
    """Times are nanoseconds, guint64: `start` of running time, `stream-start` of stream time, and so on. A quad is an
    array of eight doubles, x and y of each corner."""
    made = Gst.Structure.new_empty(name_of(event))
    for name, value in vars(event).items():
        if name in TIMES:
            made.set_value(TIMES[name], _nanoseconds(value))
            made.set_value(f"stream-{TIMES[name]}", _nanoseconds(timing.rate * value + timing.shift))
        elif name not in ("source", "crop") and value is not None:
            made.set_value(name, _typed(value))
    if (crop := getattr(event, "crop", None)) is not None:
        made.set_value("crop", sample(crop))
    return made


def _nanoseconds(seconds: float) -> GObject.Value:
    return GObject.Value(GObject.TYPE_UINT64, max(0, round(seconds * Gst.SECOND)))


def _typed(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return Gst.ValueArray([float(number) for number in value.ravel()])
    if isinstance(value, dict):
        inner = Gst.Structure.new_empty("milliseconds")
        for name, number in value.items():
            inner.set_value(name, float(number))
        return inner
    if isinstance(value, int) and not isinstance(value, bool):
        return GObject.Value(GObject.TYPE_UINT64, value)
    return float(value) if isinstance(value, float) else value


def sample(crop: np.ndarray) -> Gst.Sample:
    """uint8 (h, w, 3) RGB as a picture of its own. Its rows are as long as GStreamer has them, a multiple of four."""
    height, width = crop.shape[:2]
    info = GstVideo.VideoInfo()
    info.set_format(GstVideo.VideoFormat.RGB, width, height)
    rows = np.zeros((height, info.stride[0]), np.uint8)
    rows[:, : width * 3] = crop.reshape(height, width * 3)
    return Gst.Sample.new(Gst.Buffer.new_wrapped(rows.tobytes()), info.to_caps(), None, None)
