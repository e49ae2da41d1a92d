"""Draws lines of words and tells which columns belong to words: the splitter's examples."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from ..drawing.atlas import PAD, SPACE, Atlas
from ..drawing.layout import Layout
from ..drawing.order import BLANK, MAIN, SIDE, Orders, encode
from ..drawing.renderer import Renderer

HEIGHT, STRIDE = 32, 4  # rows of a line's picture; columns that share one answer
WIDEST = 512
DRAWN = 384  # columns that a line is drawn with, before it gets its own width
PUNCTUATION = ("-", "&", ".", ":", "/", "|", "·", "*", "+")


class Lines:
    """An endless source of batches; the same atlas, words and seed give the same."""

    def __init__(self, atlas: Atlas, words: Sequence[str], seed: int = 0) -> None:
        self.orders = Orders(atlas, words)
        self.renderer = Renderer(atlas, self.orders, (HEIGHT, DRAWN))
        self.random = random.Random(seed)
        self.number = seed * 1_000_003

    def batch(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """pictures float32 [n, 3, 32, W], as `centred`, W a multiple of 4; word float32 [n, W / 4]: shares of the
        columns that belong to a word; known float32 [n, W / 4]: 0 beyond the picture's own width, and where nobody
        could tell."""
        texts = [self._text() for _ in range(count)]
        faces = np.random.default_rng(self.random.getrandbits(32)).choice(
            len(self.orders.shares), count, p=self.orders.shares
        )
        codes = encode(texts)
        for row in range(count):  # a face that can draw it
            able = self.orders.drawable[:, codes[row].ravel()].all(1) * self.orders.shares
            if not able[faces[row]] and able.sum() > 0:
                faces[row] = int(np.argmax(able * np.random.default_rng(row + self.number).random(len(able))))
        self.number += 1
        self.renderer.generator.manual_seed(self.number)
        shot = self.renderer.shot(torch.from_numpy(codes), torch.from_numpy(faces), 1)
        word = _columns(torch.from_numpy(codes).long(), shot.layout, shot.u)
        straight = shot.warp.aspect > 0.6  # the few that are turned by a quarter
        return self._scaled(shot.pictures.permute(0, 3, 1, 2).float() / 255, word, shot.warp.aspect, straight)

    def _text(self) -> tuple[str, str, str]:
        """Three lines of text, the middle one of one word to six."""
        count = self.random.choice((1, 1, 2, 2, 2, 3, 3, 4, 5, 6))
        upper, title = self.random.random() < 0.4, self.random.random() < 0.3
        parts: list[str] = []
        while len(parts) < count:
            part = self.orders.words.plain() if self.random.random() < 0.8 else self.orders.words.sample()
            if parts and self.random.random() < 0.04:
                part = self.random.choice(PUNCTUATION[:2])
            part = part.upper() if upper else part.title() if title else part
            if sum(map(len, parts)) + len(parts) + len(part) > MAIN:
                break
            parts.append(part)
        text = " ".join(parts) or "A"
        lines = [self.orders._phrase() if self.random.random() < 0.25 else "" for _ in range(2)]
        if upper:
            lines = [line.upper() for line in lines]
        return lines[0], "\0" * SIDE + text.ljust(MAIN, "\0") + "\0" * SIDE, lines[1]

    def _scaled(
        self, pictures: Tensor, word: Tensor, aspect: Tensor, straight: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        widths = (aspect * HEIGHT * torch.empty(len(aspect)).uniform_(0.8, 1.2)).clamp(12, WIDEST)
        widths = (widths / STRIDE).round().long() * STRIDE
        most = int(widths.max())
        out, truth, known = (torch.zeros(len(word), 3, HEIGHT, most), torch.zeros(len(word), most // STRIDE),
                             torch.zeros(len(word), most // STRIDE))  # fmt: skip
        for i, width in enumerate(widths.tolist()):
            picture = F.interpolate(pictures[i : i + 1], size=(HEIGHT, width), mode="bilinear", antialias=True)[0]
            out[i, :, :, :width] = centred(blurred(picture, self.random))
            truth[i, : width // STRIDE] = F.interpolate(word[i][None, None], size=width // STRIDE, mode="area")[0, 0]
            known[i, : width // STRIDE] = float(straight[i])
        return out, truth, known


def blurred(picture: Tensor, random: random.Random) -> Tensor:
    """A picture [3, H, W] as it is when a detector finds it far away: half of them with a third of the pixels to
    all."""
    if random.random() < 0.5:
        return picture
    share = random.uniform(0.25, 0.9)
    size = (round(picture.shape[1] * share), max(2, round(picture.shape[2] * share)))
    small = F.interpolate(picture[None], size=size, mode="bilinear", antialias=True)
    return F.interpolate(small, size=picture.shape[1:], mode="bilinear")[0]


def centred(picture: Tensor) -> Tensor:
    """A picture [3, H, W] less its mean colour: as the network takes it."""
    return picture - picture.mean((1, 2), keepdim=True)


def _columns(codes: Tensor, layout: Layout, u: Tensor) -> Tensor:
    """float32 [n, W]: does a column of the picture show (part of) a word? From the middle rows."""
    n, _, slots = codes.shape
    shrink, left, _, wide, _ = layout.place.view(5, n, 3, slots).select(2, 1)
    drawn = (codes[:, 1] != BLANK) & (codes[:, 1] != SPACE) & (wide > 1.5)
    x0, x1 = (left + PAD) / shrink, (left + wide + 1 - PAD) / shrink
    middle = u[:, HEIGHT // 2 - 2 : HEIGHT // 2 + 2].mean(1)  # [n, W]
    inside = torch.zeros_like(middle, dtype=torch.bool)
    for row, line in enumerate(drawn.tolist()):
        slot = 0
        while slot < slots:
            end = slot
            while end < slots and line[end]:
                end += 1
            if end > slot:
                inside[row] |= (middle[row] >= x0[row, slot:end].min()) & (middle[row] <= x1[row, slot:end].max())
            slot = end + 1
    return inside.float()
