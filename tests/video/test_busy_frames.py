"""Where somebody waits, and a frame shows more words than there is time to read."""

from __future__ import annotations

import numpy as np
from clips import needed

from clip4str.runtime import Word
from clip4str.video.detect import Detections
from clip4str.video.events import WordEnded
from clip4str.video.frames import Frame
from clip4str.video.reader import VideoReader

needed("cv2", "video")


class Wall:
    """Twelve words that all come at once, found in every search."""

    def __init__(self):
        y, x = (values.ravel() for values in np.mgrid[0:4, 0:3])
        corner = np.stack([x * 100 + 10, y * 50 + 10], 1)[:, None].astype(np.float32)
        self.quads = corner + np.array([[0, 0], [80, 0], [80, 30], [0, 30]], np.float32)
        self.picture = np.random.default_rng(0).integers(0, 255, (220, 320, 3), np.uint8)
        self.batches = []

    def detect(self, frame):
        return Detections(self.quads, np.ones(len(self.quads), np.float32))

    def read(self, images, on_error="raise"):
        self.batches.append(len(images))
        return [Word("WORD", 0.6, (0.6,)) for _ in images]


def test_where_somebody_waits_a_frames_crops_are_as_many_as_there_is_time_for():
    for budget, most in ((None, 12), (33.0, 4)):
        wall = Wall()
        reader, told = VideoReader(wall, wall, budget=budget), []
        for number in range(30):
            told += reader.push(Frame(wall.picture + np.uint8(number % 3), number / 30, number, duration=1 / 30))
            if reader._pushed is not None and budget:
                reader._pushed.schedule.crop_time = 8.0
        told += reader.finish()
        assert wall.batches[0] == most and max(wall.batches) <= most
        assert sum(isinstance(event, WordEnded) for event in told) == 12  # nobody is left out
        assert all(event.reads >= 2 for event in told if isinstance(event, WordEnded))
