"""Boards that show words by a plan, with a detector and a recogniser that know it: for what following and voting do."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from scenes import FACE

from clip4str.runtime import Word
from clip4str.video.detect import Detections
from clip4str.video.events import WordEnded
from clip4str.video.frames import Frame
from clip4str.video.reader import VideoReader

RATE = 10.0


class Board:
    """plan: word by frame, "" for none; its box is that of the letters. sure: confidence of every read."""

    def __init__(self, plan, sure=0.95, size=(120, 320), at=(40, 40), turned=False):
        self.plan, self.sure, self.size, self.at, self.turned = list(plan), sure, size, at, turned
        self.now, self.asked = 0, 0
        self.ground = np.random.default_rng(0).integers(90, 130, (*size, 3), np.uint8)

    def box(self, word):
        return ImageDraw.Draw(Image.new("L", (1, 1))).textbbox(self.at, word, font=ImageFont.truetype(str(FACE), 36))

    def pixels(self, i):
        picture = Image.fromarray(self.ground)
        if self.plan[i]:
            draw = ImageDraw.Draw(picture)
            draw.text(self.at, self.plan[i], font=ImageFont.truetype(str(FACE), 36), fill="white")
        noise = np.random.default_rng(i).integers(0, 3, (*self.size, 3), np.uint8)
        pixels = np.asarray(picture) // 2 + 60 + noise
        return np.ascontiguousarray(np.rot90(pixels)) if self.turned else pixels

    def frames(self, **how):
        return [Frame(self.pixels(i), i / RATE, i, duration=1 / RATE, **how) for i in range(len(self.plan))]

    def detect(self, frame):
        self.now = frame.index
        word = self.plan[frame.index]
        if not word:
            return Detections(np.zeros((0, 4, 2), np.float32), np.zeros(0, np.float32))
        x0, y0, x1, y1 = self.box(word)
        x0, y0, x1, y1 = x0 - 4, y0 - 4, x1 + 4, y1 + 4
        quad = np.array([[x0, y0], [x1, y0], [x1, y1], [x0, y1]], np.float32)
        if self.turned:  # a quarter to the left: (x, y) -> (y, width - x)
            quad = np.stack([quad[:, 1], self.size[1] - quad[:, 0]], -1)
            quad = np.roll(quad, -1, 0)
        return Detections(quad[None].astype(np.float32), np.ones(1, np.float32))

    def upside_down(self, image):
        x0, y0, x1, y1 = self.box(self.plan[self.now])
        upright = np.asarray(Image.fromarray(self.frame_upright()).crop((x0 - 4, y0 - 4, x1 + 4, y1 + 4)).convert("L"))
        seen = np.asarray(Image.fromarray(image).convert("L").resize(upright.shape[::-1]), float)
        right, wrong = (np.corrcoef(way.ravel(), upright.ravel())[0, 1] for way in (seen, seen[::-1, ::-1]))
        return right < wrong

    def frame_upright(self):
        pixels = self.pixels(self.now)
        return np.ascontiguousarray(np.rot90(pixels, -1)) if self.turned else pixels

    def read(self, images, on_error="raise"):
        self.asked += len(images)
        flat = [image.shape[1] > image.shape[0] and not (self.turned and self.upside_down(image)) for image in images]
        return [Word(self.plan[self.now], self.sure if wide else 0.1, (self.sure,)) for wide in flat]


class Hidden(Board):
    """One word past which a post goes, `post` pixels wide, from left to right: found and read is what it leaves,
    in one piece where it hides an end, in two where it is in the middle (the longer one is read)."""

    def __init__(self, word, frames, post=60, pace=4, first=12, **how):
        super().__init__([word] * frames, **how)
        self.word, self.post, self.pace, self.first = word, post, pace, first

    def hidden(self, i):
        left = self.at[0] - self.post + self.pace * (i - self.first)
        return left, left + self.post

    def whole(self, i):
        left, right = self.hidden(i)
        x0, _, x1, _ = self.box(self.word)
        return right <= x0 or left >= x1

    def pixels(self, i):
        pixels = super().pixels(i).copy()
        left, right = (int(np.clip(x, 0, self.size[1])) for x in self.hidden(i))
        pixels[:, left:right] = 40 + pixels[:, left:right] // 16
        return pixels

    def pieces(self, i):
        """(x0, x1, letters) of what is to be seen."""
        left, right = self.hidden(i)
        x0, _, x1, _ = self.box(self.word)
        edges = [self.box(self.word[:k])[2] if k else x0 for k in range(len(self.word) + 1)]
        found = []
        for a, b in ((x0, min(x1, left)), (max(x0, right), x1)):
            letters = "".join(c for c, s, e in zip(self.word, edges, edges[1:]) if s >= a - 4 and e <= b + 4)
            if b - a >= 12 and letters:
                found.append((a, b, letters))
        return [(x0, x1, self.word)] if self.whole(i) else found

    def detect(self, frame):
        self.now = frame.index
        _, y0, _, y1 = self.box(self.word)
        quads = [
            [[a - 3, y0 - 4], [b + 3, y0 - 4], [b + 3, y1 + 4], [a - 3, y1 + 4]] for a, b, _ in self.pieces(self.now)
        ]
        return Detections(np.array(quads, np.float32).reshape(-1, 4, 2), np.ones(len(quads), np.float32))

    def read(self, images, on_error="raise"):
        self.asked += len(images)
        longest = max((piece[2] for piece in self.pieces(self.now)), key=len, default="")
        return [Word(longest, self.sure if longest else 0.1, (self.sure,)) for _ in images]


def events(board, frames=None, **how):
    reader = VideoReader(board, board, **how)
    told = []
    for frame in frames or board.frames():
        board.now = frame.index
        told += reader.push(frame)
    return told + reader.finish()


def ended(told):
    return [(e.text, pytest.approx(e.start), pytest.approx(e.end)) for e in told if isinstance(e, WordEnded)]
