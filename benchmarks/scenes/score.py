"""What a VideoReader told of a generated video, beside what is true."""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from clip4str.video.events import WordEnded
from clip4str.video.geometry import area, overlaps

from .truth import TrueWord, Truth

SAME = 0.3  # of two quads' common area over all of it, from which an event is of a word
ENOUGH = 5  # frames that show all of a word, from which it counts


@dataclass
class Score:
    """words: that count; right: read right by the longest of its tracks; found: with any track; tracks: of those found;
    false: tracks of no word at all. starts, ends: seconds that the first and last track of a word are late (early:
    negative), of words that come and go at once. reads, frames: of all tracks."""

    words: int = 0
    right: int = 0
    found: int = 0
    tracks: int = 0
    false: int = 0
    reads: int = 0
    frames: int = 0
    starts: list[float] = field(default_factory=list)
    ends: list[float] = field(default_factory=list)
    wrong: list[tuple[str, str]] = field(default_factory=list)

    def add(self, other: Score) -> None:
        for name, value in vars(other).items():
            setattr(self, name, getattr(self, name) + value)


def score(events: Sequence[WordEnded], truth: Truth) -> Score:
    told: dict[int, list[WordEnded]] = {}
    result = Score()
    for event in events:
        frame = min(bisect.bisect_right(truth.times, event.time + 1e-6) - 1, len(truth.times) - 2)
        word = word_at(truth.words, frame, event.quad)
        result.reads += event.reads
        result.frames += event.frames
        if word is None:
            result.false += 1
        else:
            told.setdefault(id(word), []).append(event)
    for word in truth.words:
        if len(word.whole) < ENOUGH:
            continue
        mine = told.get(id(word), [])
        result.words += 1
        result.found += bool(mine)
        result.tracks += len(mine)
        right = bool(mine) and max(mine, key=lambda e: e.frames).text.casefold() == word.text.casefold()
        result.right += right
        if mine and not right:
            result.wrong.append((word.text, " ".join(event.text for event in mine)))
        if mine:
            start, end = truth.span(word)
            if word.first in word.whole:
                result.starts.append(min(event.start for event in mine) - start)
            if word.last in word.whole:
                result.ends.append(max(event.end for event in mine) - end)
    return result


def word_at(words: Sequence[TrueWord], frame: int, quad: np.ndarray) -> TrueWord | None:
    """The word of which most lies in a quad (4, 2) of a frame."""
    there = [word for word in words if frame in word.quads]
    if not there:
        return None
    shared = overlaps(quad[None], np.array([word.quads[frame] for word in there]))[0]
    union = [area(quad) + area(word.quads[frame]) - both for word, both in zip(there, shared)]
    ratios = shared / np.maximum(union, 1e-6)
    best = int(ratios.argmax())
    return there[best] if ratios[best] >= SAME else None
