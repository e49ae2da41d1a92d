"""Words as GstAnalytics metadata, of GStreamer 1.24 and newer: an object detection with the word as its type."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import gi
import numpy as np

from ..events import Shown
from .introspection import GLib, Gst

MOST = 65536  # different words: GLib keeps what it is told as a quark for ever
OTHERS = "word"  # the type of those that come after

_known: set[str] = set()


def analytics() -> Any:
    """The GstAnalytics module, None where GStreamer is older, or its typelib is not installed."""
    try:
        gi.require_version("GstAnalytics", "1.0")
        from gi.repository import GstAnalytics
    except (ImportError, ValueError):
        return None
    return GstAnalytics


def attach(module: Any, buffer: Gst.Buffer, words: Iterable[Shown]) -> None:
    """module: analytics'. buffer: writable. Upright boxes around the words' quads."""
    words = list(words)
    if not words:
        return
    meta = module.buffer_add_analytics_relation_meta(buffer)
    for word in words:
        left, top = np.floor(word.quad.min(0)).astype(int).tolist()
        right, bottom = np.ceil(word.quad.max(0)).astype(int).tolist()
        meta.add_od_mtd(_quark(word.text), left, top, right - left, bottom - top, float(word.confidence))


def _quark(text: str) -> int:
    if text not in _known and len(_known) >= MOST:
        text = OTHERS
    _known.add(text)
    return GLib.quark_from_string(text)
