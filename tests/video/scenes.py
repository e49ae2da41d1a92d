"""Small generated videos, and a detector that knows the truth."""

from __future__ import annotations

from pathlib import Path

import matplotlib
import numpy as np

from clip4str.benchmarks.scenes.scene import Recipe, Video
from clip4str.benchmarks.scenes.truth import Truth
from clip4str.video.detect import Detections
from clip4str.video.frames import Frame

FACE = Path(matplotlib.get_data_path(), "fonts/ttf/DejaVuSans-Bold.ttf")
WORDS = ("market", "station", "coffee", "street", "garden", "museum", "bakery", "parking", "hotel", "summer", "river")
SMALL = Recipe(size=(360, 640), frames=30, scenes=1, signs=9, speed=2.0, occluders=0, movers=0, hop=0.0, noise=2.0)


def video(recipe: Recipe = SMALL, seed: int = 3) -> tuple[list[Frame], Truth]:
    made = Video(recipe, WORDS, [FACE], seed)
    frames = [Frame(pixels, made.truth.times[i], i, duration=made.truth.times[i + 1] - made.truth.times[i])
              for i, pixels in enumerate(made)]  # fmt: skip
    return frames, made.truth


class Knowing:
    """Finds the words that are there; counts how often it was asked."""

    def __init__(self, truth: Truth) -> None:
        self.truth, self.asked = truth, []

    def detect(self, frame: Frame) -> Detections:
        self.asked.append(frame.index)
        quads = [word.quads[frame.index] for word in self.truth.words if frame.index in word.quads]
        quads = np.array(quads, np.float32).reshape(-1, 4, 2)
        return Detections(quads, np.ones(len(quads), np.float32))
