"""GStreamer's modules of the versions that are meant."""

import gi

for _name in ("Gst", "GstBase", "GstVideo"):
    gi.require_version(_name, "1.0")
from gi.repository import GLib, GObject, Gst, GstBase, GstVideo  # noqa: E402

__all__ = ["GLib", "GObject", "Gst", "GstBase", "GstVideo"]
