"""Video: frames in, each word once, with the best reading and its times. Over the runtime's public face alone.

Importing this loads nothing heavy; names load on first use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .detect import Detections, Detector
    from .detect.ppocr import TextDetector
    from .events import Event, Gap, Statistics, WordChanged, WordEnded, WordFound, as_json
    from .frames import Frame
    from .photo import PhotoWord, read_photo
    from .reader import VideoReader
    from .sources import open_source
    from .vote import Lexicon, TrackVote

_LAZY = {
    "Detections": "detect", "Detector": "detect", "TextDetector": "detect.ppocr",
    "Event": "events", "Gap": "events", "Statistics": "events", "WordChanged": "events", "WordEnded": "events",
    "WordFound": "events", "as_json": "events", "Frame": "frames", "PhotoWord": "photo", "read_photo": "photo",
    "VideoReader": "reader", "open_source": "sources", "Lexicon": "vote", "TrackVote": "vote",
}  # fmt: skip
__all__ = [
    "Detections", "Detector", "Event", "Frame", "Gap", "Lexicon", "PhotoWord", "Statistics", "TextDetector",
    "TrackVote", "VideoReader", "WordChanged", "WordEnded", "WordFound", "as_json", "open_source", "read_photo",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(f"{__name__}.{_LAZY[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
