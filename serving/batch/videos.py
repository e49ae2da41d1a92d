"""Videos of a batch job: video's own reader, without pictures of the words."""

from __future__ import annotations

from typing import TYPE_CHECKING

from clip4str.runtime import Recognizer

if TYPE_CHECKING:
    from clip4str.video import VideoReader


def video_reader(recognizer: Recognizer) -> VideoReader:
    """Raises BackendError where what videos need is not installed."""
    from clip4str.video import VideoReader

    return VideoReader(recognizer, crops=False)
