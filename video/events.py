"""What a VideoReader tells: words found, changed and ended, gaps, statistics.

Times are seconds of the source's own clock, from its first frame on. Quads are (4, 2) float32, pixels of the frame: the
word's top-left, top-right, bottom-right and bottom-left corner, as it is read.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np


class Shown(NamedTuple):
    """A word in the present frame. quad: (4, 2). text: so far, "" for none. settled: no more reads are needed. track:
    as its events have it."""

    quad: np.ndarray
    text: str = ""
    confidence: float = 1.0
    settled: bool = True
    track: int = 0


@dataclass(frozen=True)
class WordFound:
    """A word can be told for the first time. `time`: of the frame that told it; `start`: since when it is seen."""

    source: int
    track: int
    time: float
    start: float
    text: str
    confidence: float
    quad: np.ndarray
    label: str | None = None


@dataclass(frozen=True)
class WordChanged:
    """Further frames say otherwise: `previous` was told before."""

    source: int
    track: int
    time: float
    text: str
    previous: str
    confidence: float
    quad: np.ndarray


@dataclass(frozen=True)
class WordEnded:
    """A word is gone, or the source has ended: told once for each word that was found, never left out.

    start: when its first frame began, end: when the last frame that shows it ended. quad: where it was in the best
    frame, whose time is `time`; crop: that frame's part, uint8 (H, W, 3) RGB, the word upright. confidence: see
    vote.TrackVote. reads: crops read for it; frames: that show it, as far as it was followed. label: the detector's.
    partial: the frame's edge cut it whenever it was read.
    """

    source: int
    track: int
    text: str
    confidence: float
    start: float
    end: float
    time: float
    quad: np.ndarray
    reads: int
    frames: int
    label: str | None = None
    crop: np.ndarray | None = field(default=None, repr=False, compare=False)
    partial: bool = False


@dataclass(frozen=True)
class Gap:
    """Nothing is known of the time from start to end: a stream broke, frames were damaged, the picture stood still.

    reason: "damaged", "frozen", "reconnected", "size changed", "stalled", "time stepped back".
    """

    source: int
    start: float
    end: float
    reason: str


@dataclass(frozen=True)
class Statistics:
    """Of one source so far. dropped: frames that a live source overtook; damaged: not looked at; detections: frames
    in which words were searched; crops: words in view, summed over frames, of which reads were read; milliseconds: of
    this thread and stage, over all frames; ended: the source has, and these are its last; unsure: words that were left
    out, as no read was sure enough (VideoReader's least)."""

    source: int
    frames: int = 0
    dropped: int = 0
    damaged: int = 0
    detections: int = 0
    crops: int = 0
    reads: int = 0
    tracks: int = 0
    words: int = 0
    seconds: float = 0.0
    milliseconds: dict[str, float] = field(default_factory=dict)
    ended: bool = False
    unsure: int = 0


Event = WordFound | WordChanged | WordEnded | Gap | Statistics
VERSION = 1  # of the form below


def as_json(event: Event) -> dict[str, Any]:
    """An event as plain values, docs/video.md's schema: {"event": "word_ended", "version": 1, ...}, times to the
    microsecond, quads to the hundredth of a pixel, no crop."""
    name = "".join(f"_{c.lower()}" if c.isupper() else c for c in type(event).__name__).lstrip("_")
    values: dict[str, Any] = {"event": name, "version": VERSION}
    for key, value in vars(event).items():
        if key == "crop" or (key == "label" and value is None):
            continue
        if isinstance(value, np.ndarray):
            value = np.round(value.astype(float), 2).tolist()
        elif isinstance(value, float):
            value = round(value, 6)
        elif isinstance(value, dict):
            value = {k: round(v, 3) for k, v in value.items()}
        values[key] = value
    return values
