"""Crops to read: what is known of each when it is asked for, and which of them come first."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

from .flow import Small
from .track import Track


@dataclass(frozen=True)
class Moment:
    """A frame as it was followed, its number, and from when to when it is shown."""

    seen: Small
    number: int
    began: float
    end: float


@dataclass(frozen=True)
class Request:
    """A crop to read: of which track, how good it is, and of which frame. partial: the frame's edge cuts the word.
    changed, growth, grown: the track's then; by the time of the answer they may be others."""

    track: Track
    quad: np.ndarray
    quality: float
    of: Moment
    partial: bool
    changed: float | None
    growth: float
    grown: bool


class Aside(Protocol):
    """What reads crops while the next frames are looked at, a batch at a time: reading.Reading."""

    @property
    def busy(self) -> bool: ...

    def answered(self, wait: bool = False) -> None: ...

    def at_once(self, looked: Sequence[tuple[Any, list[Request]]]) -> None: ...


def request(track: Track, quality: float, of: Moment, partial: bool) -> Request:
    return Request(track, track.quad.copy(), quality, of, partial, track.changed, track.growth, track.grown)


def first_of(wanted: list[Request], most: int | None) -> list[Request]:
    """So many of a frame's crops, the others in the next frames: new words first, but one that was read longest ago in
    any case. None: all."""
    if most is None or len(wanted) <= most:
        return wanted
    new = [request for request in wanted if request.track.reads == 0]
    again = sorted((request for request in wanted if request.track.reads), key=lambda r: r.track.read_at)
    first = new[: most - bool(again)]
    return first + again[: most - len(first)]
