"""What an answer to a request changes in its track, and what is told of it."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from .flow import look
from .photo import turned
from .requests import Request
from .telling import Telling
from .track import Shot, State
from .tracks import Tracker

Shoot = Callable[[], np.ndarray | None]


def learn(
    tracker: Tracker, telling: Telling, now: float, asked: Request, crop: Shoot, text: str, confidence: float,
    turns: int = 0,
) -> None:  # fmt: skip
    """An answer counts for the frame that it was asked of, which may lie before the present one, begun at `now`; by
    then the track may be lost, or show another word.

    crop: gives it, turned by `turns` quarters, as it was read; asked for the best shots alone.
    """
    track = asked.track
    track.asked, lost = False, track.gone
    over = lost and track.reads > 0 and (track.final or asked.changed is not None)
    if track.state is State.ENDED or (track.grown and not asked.grown) or over:
        return  # told, to be read anew, or of what is in its place by now
    if track.partial and not asked.partial:  # what was read of a part says nothing of the whole
        track.anew(tracker.vote())
    track.partial = asked.partial and (track.partial or track.reads == 0)
    since = track.changed if asked.changed is None else None
    track.changed = asked.changed
    before, end = track, max(asked.of.end, track.end)
    track = tracker.read(before, text, confidence, asked.of.began, end, not asked.partial)
    if lost and not track.gone:
        track.state = State.LOST
    if before.final:
        telling.end(before, now)
    track.read_at, track.read_time = asked.of.number, asked.of.began
    if track.rival is None:
        track.read_look, track.changed = look(asked.of.seen, asked.quad), since
    track.growth = track.growth / asked.growth if track is before else 1.0
    track.read_quality, track.turns = max(track.read_quality, asked.quality), turns
    if track.rival is None:
        shot = Shot(asked.quality, asked.of.began, turned(asked.quad, turns), None, text)
        if track.shot(shot):
            shot.crop = crop()
    track.settle()
    telling.read(track, now)
