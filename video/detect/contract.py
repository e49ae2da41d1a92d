"""What a detector is, and what it finds."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol, runtime_checkable

import numpy as np

from clip4str.core.errors import UsageError

from ..frames import Frame


class Detections(NamedTuple):
    """quads float32 (N, 4, 2): pixels of a word's top-left, top-right, bottom-right, bottom-left corner. scores float32
    (N,), 0 to 1. labels: of each, "" for none; or () for none at all."""

    quads: np.ndarray
    scores: np.ndarray
    labels: tuple[str, ...] = ()


NOTHING = Detections(np.zeros((0, 4, 2), np.float32), np.zeros(0, np.float32))


@runtime_checkable
class Detector(Protocol):
    """What finds words. Called by one thread at a time."""

    def detect(self, frame: Frame) -> Detections: ...


def checked(found: object, name: str) -> Detections:
    """What a detector gave, as arrays. Raises UsageError, naming the detector, for what is none."""
    try:
        given: Any = found
        quads, scores = (np.asarray(values, np.float32) for values in given[:2])
        labels = tuple(given[2])
    except (TypeError, ValueError, IndexError):
        raise UsageError(
            f"{name}.detect gave a {type(found).__name__}, not Detections(quads, scores, labels)"
        ) from None
    quads = quads.reshape(0, 4, 2) if quads.size == 0 else quads
    if quads.ndim != 3 or quads.shape[1:] != (4, 2) or scores.shape != (len(quads),):
        raise UsageError(f"{name}.detect gave quads {quads.shape} and scores {scores.shape}, not (N, 4, 2) and (N,)")
    if labels and len(labels) != len(quads):
        raise UsageError(f"{name}.detect gave {len(labels)} labels for {len(quads)} quads")
    return Detections(quads, scores, labels)
