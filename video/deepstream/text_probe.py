"""The probe that makes objects out of a text detector's tensor output, which nvinfer has no parser for."""

from __future__ import annotations

from typing import Any

import numpy as np

from clip4str.core.errors import ImageError, UsageError

from ..detect.boxes import boxes
from ..geometry import sound
from .adapter import Batch, Box, FrameInBatch
from .probe import Probe, Say

LEAST = 4.0  # pixels of a box's sides


class TextProbe(Probe):
    """Words, or lines, of a detector of PP-OCR's kind (Differentiable Binarization), as objects for nvtracker.

    >>> nvinfer.get_static_pad("src").add_probe(Gst.PadProbeType.BUFFER, TextProbe(component=1))

    nvinfer has network-type=100 and output-tensor-meta=1 (docs/deepstream/text_detector.txt), the surfaces are RGBA.
    Objects are upright boxes, so slanted words are cut with what is around them. In frames that were not searched
    (interval=N) there is nothing to add: the tracker carries on.

    component: the detector's gie-unique-id. words: cut lines into words: on the CPU, line by line, while the
    buffer waits. most: lines of a frame, the largest first. label: of the objects. threads: of the CPU. say, pyds: see
    Probe. Raises BackendError, UsageError.
    """

    def __init__(
        self, *, component: int = 1, words: bool = True, most: int = 64, label: str = "text", threads: int = 1,
        say: Say | None = None, pyds: Any = None,
    ) -> None:  # fmt: skip
        if most < 1:
            raise UsageError(f"most is 1 line and more, not {most}")
        super().__init__(say, pyds)
        self.component, self.most, self.label, self.splitter = component, most, label, None
        if words:
            from ..detect.words import Splitter

            self.splitter = Splitter(threads=threads)

    def process(self, buffer: Any) -> None:
        batch = self._adapter.batch(buffer)
        if batch is None:
            self.trouble("buffers have no batch metadata: the probe belongs behind nvstreammux")
            return
        for frame in batch.frames():
            for values in batch.maps(frame, self.component):
                found = self._found(batch, frame, values)
                with batch.locked():
                    for box, score in found:
                        batch.add_object(frame, box, score, self.label, self.component)
                    batch.searched(frame)

    def _found(self, batch: Batch, frame: FrameInBatch, values: np.ndarray) -> list[tuple[Box, float]]:
        map = np.squeeze(values)
        if map.ndim != 2:
            raise ImageError(f"the detector's output is {values.shape}, not a map of probabilities (1, H, W)")
        with batch.pixels(frame) as pixels:
            size = pixels.shape[:2]
            quads, scores = boxes(map, size)
            quads, scores = quads[: self.most], scores[: self.most]
            if self.splitter is not None and len(quads):
                quads, origin = self.splitter.split(np.ascontiguousarray(pixels), quads)
                scores = scores[origin]
        good = np.flatnonzero(sound(quads))
        return [(box, float(scores[i])) for i in good if (box := _upright(quads[i], size)) is not None]


def _upright(quad: np.ndarray, size: tuple[int, int]) -> Box | None:
    """The box around a quad, within the frame; None where nothing of it is left."""
    low, high = np.clip(quad.min(0), 0, size[::-1]), np.clip(quad.max(0), 0, size[::-1])
    width, height = (high - low).tolist()
    return None if min(width, height) < LEAST else (float(low[0]), float(low[1]), width, height)
