"""A detector of frames on the host, for frames on a GPU: it is shown a small picture of them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from ..frames import Frame
from .contract import Detections, Detector

LONG_SIDE = 1280  # pixels: the detector shrinks them further, but cuts lines into words in what it is given


class OnThumbnails:
    """detector: finds words on the host. colour: a frame, and the longer side to shrink it to -> (h, w, 3) uint8 RGB.
    Frames that lie on the host are handed on as they are."""

    def __init__(self, detector: Detector, colour: Callable[[Frame, int], np.ndarray]) -> None:
        self.detector, self._colour = detector, colour

    def detect(self, frame: Frame) -> Detections:
        if not frame.on_device:
            return self.detector.detect(frame)
        pixels = self._colour(frame, LONG_SIDE)
        found = self.detector.detect(Frame(pixels, frame.time, frame.index))
        height, width = frame.size
        scale = np.array([width / pixels.shape[1], height / pixels.shape[0]], np.float32)
        return found._replace(quads=np.asarray(found.quads, np.float32).reshape(-1, 4, 2) * scale)
