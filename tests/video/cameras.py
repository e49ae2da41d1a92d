"""Live sources that come by a plan, and recognisers that hold their answers back."""

from __future__ import annotations

import threading
import time

import numpy as np
from boards import Board
from PIL import Image

from clip4str.runtime import Word
from clip4str.video.frames import Frame
from clip4str.video.sources.base import Source

LONG = 20.0


class Live(Source):
    """Frames that come whether or not somebody waits for them; `then` is called after so many."""

    name, live, rate = "camera", True, 10.0

    def __init__(self, frames, at, then):
        super().__init__()
        self.left, self.at, self.then, self.size = list(frames), at, then, frames[0].size

    def __next__(self):
        if not self.left:
            raise StopIteration
        frame = self.left.pop(0)
        if frame.index == self.at:
            self.then()
        return frame

    def wait(self, timeout=None):
        return True


class Looks:
    """Reads what is in the crop, of a board's words; batches after so many that are free not before it may."""

    def __init__(self, *boards, sure=0.95, free=0):
        self.known = {word: self.drawn(board, i) for board in boards for i, word in enumerate(board.plan) if word}
        self.free, self.batches = free, 0
        self.began, self.done, self.may = (threading.Event() for _ in range(3))
        self.sure, self.threads = sure, []

    @staticmethod
    def drawn(board, i):
        x0, y0, x1, y1 = board.box(board.plan[i])
        return Image.fromarray(board.pixels(i)).crop((x0 - 4, y0 - 4, x1 + 4, y1 + 4)).convert("L")

    def read(self, images, on_error="raise"):
        self.threads.append(threading.current_thread().name)
        self.began.set()
        self.batches += 1
        assert self.batches <= self.free or self.may.wait(LONG)
        words = [Word(self.seen(image), self.sure, (self.sure,)) for image in images]
        self.done.set()
        return words

    def seen(self, image):
        def like(word):
            drawn = self.known[word]
            crop = Image.fromarray(image).convert("L").resize(drawn.size)
            return np.corrcoef(np.asarray(crop, float).ravel(), np.asarray(drawn, float).ravel())[0, 1]

        return max(self.known, key=like)


class Camera(Live):
    """Whose second frame comes once words are being read, or `idle` looks for it after they were; `then` is called with
    frame `at`."""

    def __init__(self, frames, reads, at, then, idle=0, pace=0.0):
        super().__init__(frames, at, then)
        self.reads, self.idle, self.pace = reads, idle, pace

    def wait(self, timeout=None):
        time.sleep(self.pace)
        if not self.left or self.left[0].index != 1 or (self.reads.began.is_set() and not self.idle):
            return True
        self.idle -= self.reads.done.is_set() and self.idle > 0
        time.sleep(0.005)
        return False


def soon(event):
    return lambda: threading.Timer(0.3, event.set).start()


class Surer(Looks):
    """The first batch is read wrong, and not surely."""

    def read(self, images, on_error="raise"):
        words = super().read(images, on_error)
        return [Word("H0TEI", 0.55, (0.55,))] * len(words) if self.batches == 1 else words


class Stalls(Camera):
    """Gives no more frames for a while."""

    until = None

    def wait(self, timeout=None):
        if self.left:
            return super().wait(timeout)
        self.until = self.until or time.monotonic() + 1.2
        time.sleep(0.02)
        return time.monotonic() > self.until


class Two(Board):
    """MUSEUM below the board's word from frame `at` on."""

    def __init__(self, plan, at):
        super().__init__(plan, size=(200, 320))
        self.other, self.since = Board(["MUSEUM"], size=self.size, at=(40, 120)), at

    def pixels(self, i):
        if i < self.since or not self.plan[i]:
            return super().pixels(i)
        return np.maximum(super().pixels(i), self.other.pixels(0))

    def detect(self, frame):
        found = super().detect(frame)
        if frame.index < self.since or not len(found.quads):
            return found
        self.other.plan = ["MUSEUM"] * (frame.index + 1)
        more = self.other.detect(frame)
        return found._replace(
            quads=np.concatenate([found.quads, more.quads]), scores=np.concatenate([found.scores, more.scores])
        )


class Told:
    """A stream's part in reading."""

    frame = Frame(np.zeros((40, 40, 3), np.uint8), 0.0, 0)

    def __init__(self):
        self.told = []

    def crops(self, requests):
        return [np.arange(900, dtype=np.uint8).reshape(10, 30, 3)] * len(requests)

    def learn(self, request, crop, text, confidence, turns):
        self.told.append(text)

    def read_in(self, milliseconds, crops, aside):
        assert crops == 1 and aside
