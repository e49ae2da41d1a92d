"""What to draw: texts, their neighbours and a face for each word of a batch. On the host; a few microseconds a word."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from clip4str.core.errors import DataError

from ..vocabulary import CHARSET, DIGITS, LONG, MAX_LENGTH, UPPER
from ..words import WordSampler, dictionary
from .atlas import SPACE, Atlas

BLANK = SPACE + 1  # an empty slot
SIDE, MAIN = 9, 28  # slots of a neighbour on the same line, of the word itself
SLOTS = SIDE + MAIN + SIDE  # of each of the three lines: above, the word's own, below
NEIGHBOURS = 0.3  # share of words with other text near them
# Receipts, labels, price tags, displays: enough for their plain kind of letters, for few words of photos are such.
PRINTED = 0.035
PAPER = 1 << 16  # added to the face of printed words; more than an atlas can hold
_CODES = np.full(256, BLANK, np.uint8)
_CODES[[ord(c) for c in CHARSET + " "]] = range(SPACE + 1)


class Order(NamedTuple):
    """codes uint8 [n, 3, SLOTS]: charset index, SPACE or BLANK; faces int64 [n], PAPER more for words printed in small
    on paper; labels: what the words say."""

    codes: np.ndarray
    faces: np.ndarray
    labels: list[str]

    def rows(self, chosen: np.ndarray) -> Order:
        return Order(self.codes[chosen], self.faces[chosen], [self.labels[i] for i in chosen])


class Orders:
    """An endless source of orders; `take` is a function of the seed alone.

    words: most frequent first. extra: further words (default: the system's dictionary). labels: texts of real crops.
    """

    def __init__(self, atlas: Atlas, words: Sequence[str] = (), extra: Sequence[str] | None = None,
                 labels: Sequence[str] = ()) -> None:  # fmt: skip
        self.rng = random.Random(0)
        self.words = WordSampler(words, self.rng, dictionary() if extra is None else extra, labels)
        self.drawable = np.concatenate((atlas.drawable, np.ones((len(atlas), 2), bool)), axis=1)
        self.unicase = np.array([face.unicase for face in atlas.faces])
        weights = face_weights(atlas)
        self.shares = weights / weights.sum()
        self.printing = printing_weights(atlas, self.shares)

    def take(self, count: int, seed: int | str) -> Order:
        self.rng.seed(f"{seed}/texts")
        draw = np.random.default_rng(self.rng.getrandbits(64))
        faces = draw.choice(len(self.shares), count, p=self.shares)
        printed = draw.random(count) < PRINTED
        faces[printed] = draw.choice(len(self.shares), int(printed.sum()), p=self.printing)
        drawn = [self._lines(bool(upper), bool(small)) for upper, small in zip(self.unicase[faces], printed)]
        codes = encode([lines for lines, _ in drawn])
        labels = [label for _, label in drawn]
        missing = ~self.drawable[faces[:, None], codes.reshape(count, -1)].all(axis=1)
        for row in np.flatnonzero(missing):
            shares = self.printing if printed[row] else self.shares
            faces[row], codes[row], labels[row] = self._retry(codes[row], labels[row], shares, draw)
        return Order(codes, faces + PAPER * printed, labels)

    def _lines(self, upper: bool, printed: bool = False) -> tuple[tuple[str, str, str], str]:
        """Three lines of text with the word in its place, and its label."""
        sample = self.words.receipt if printed and self.rng.random() < 0.75 else self.words.sample
        text = sample()
        while len(text) > MAIN or not 0 < len(text.replace(" ", "")) <= MAX_LENGTH:
            text = sample()
        above = below = left = right = ""
        if self.rng.random() < NEIGHBOURS:
            sides = self.rng.choice((1, 2, 4, 8, 3, 3, 12, 15))
            above, below = (self._phrase() if sides & bit else "" for bit in (1, 2))
            beside = sides if len(text) < LONG else 0  # long words need all of the width
            left, right = (self.words.plain() if beside & bit else "" for bit in (4, 8))
            if text.isupper() and self.rng.random() < 0.8:
                above, below, left, right = above.upper(), below.upper(), left.upper(), right.upper()
        if upper:
            text, above, below, left, right = (part.upper() for part in (text, above, below, left, right))
        before = f"{left[1 - SIDE :]} ".rjust(SIDE, "\0") if left else "\0" * SIDE
        after = f" {right[: SIDE - 1]}" if right else ""
        return (above, before + text.ljust(MAIN, "\0") + after, below), text.replace(" ", "")

    def _phrase(self) -> str:
        text = self.words.plain()
        while len(text) < 12 and self.rng.random() < 0.8:
            text += " " + self.words.plain()
        return text[:SLOTS]

    def _retry(self, codes: np.ndarray, label: str, shares: np.ndarray, draw: np.random.Generator
               ) -> tuple[int, np.ndarray, str]:  # fmt: skip
        """Another face for a text that its own cannot draw, or another text where no face can."""
        for _ in range(100):
            able = shares * self.drawable[:, codes.ravel()].all(axis=1)
            if able.sum() > 0:
                face = int(draw.choice(len(able), p=able / able.sum()))
                if not self.unicase[face] or label == label.upper():
                    return face, codes, label
            shares = self.shares
            lines, label = self._lines(True)
            codes = encode([lines])[0]
        raise DataError("the atlas has no face for the texts to draw; make it with more faces")


def encode(texts: Sequence[tuple[str, str, str]]) -> np.ndarray:
    """Lines of text -> codes uint8 [n, 3, SLOTS]."""
    joined = "".join(line.ljust(SLOTS, "\0") for lines in texts for line in lines)
    return _CODES[np.frombuffer(joined.encode("latin-1"), np.uint8)].reshape(len(texts), 3, SLOTS)


def face_weights(atlas: Atlas) -> np.ndarray:
    """As fonts.font_weights: families count about evenly, faces made for signs more than fanciful or hairline ones."""
    families: dict[str, int] = {}
    for face in atlas.faces:
        families[face.family] = families.get(face.family, 0) + 1
    return np.array([
        (0.08 + f.legibility**7) * min(1.0, 0.25 + f.weight**2 / 0.12) / families[f.family] ** 0.4
        for f in atlas.faces
    ])  # fmt: skip


def printing_weights(atlas: Atlas, shares: np.ndarray) -> np.ndarray:
    """Two in three printed words in faces whose letters are all as wide, as tills have; the others in plain ones."""
    advances = atlas.glyphs[:, [CHARSET.index(c) for c in UPPER + DIGITS + "il."], 4]
    even = advances.std(axis=1) < 1
    plain = np.array([f.legibility > 0.95 and 0.2 < f.weight < 0.5 for f in atlas.faces])
    parts = [(part, weight) for part, weight in ((shares * even, 2.0), (shares * plain, 1.0)) if part.sum() > 0]
    if not parts:
        return shares
    weights = np.sum([part * (weight / part.sum()) for part, weight in parts], axis=0)
    return weights / weights.sum()
