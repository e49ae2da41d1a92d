"""The plugin, as GStreamer's loader of Python plugins wants it."""

from clip4str.video.gstreamer import NAME
from clip4str.video.gstreamer.element import Clip4StrReader, Gst

__gstelementfactory__ = (NAME, Gst.Rank.NONE, Clip4StrReader)
