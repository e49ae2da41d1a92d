"""Scenes: signs on a wall past which a camera goes, some of them on things that move, some behind such that pass."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np

from .paint import Random, ground, sign
from .truth import LEAST, SHOWN, TrueWord, Truth

WORLD = (1200, 3000)  # pixels of the wall, height and width


@dataclass(frozen=True)
class Recipe:
    """size: height, width. frames: of each scene. scenes: with a cut between them. signs: of each. speed: pixels of the
    wall that the camera goes in a frame. blur: share of a frame's motion that is smeared. noise: grey levels.
    occluders, movers: of each scene. hop: share of signs that appear or vanish at once, as displays do."""

    size: tuple[int, int] = (720, 1280)
    frames: int = 90
    scenes: int = 2
    signs: int = 14
    speed: float = 4.0
    blur: float = 0.5
    noise: float = 3.0
    occluders: int = 1
    movers: int = 1
    hop: float = 0.3
    rate: float = 30.0
    variable: bool = False


@dataclass(eq=False)
class _Sign:
    picture: np.ndarray
    quads: list[np.ndarray]
    words: list[TrueWord]
    place: np.ndarray  # (3, 3): sign to wall
    drift: np.ndarray  # (2,): pixels of the wall a frame
    shown: tuple[int, int]
    corners: np.ndarray = field(init=False)

    def __post_init__(self) -> None:
        height, width = self.picture.shape[:2]
        self.corners = np.array([[0, 0], [width, 0], [width, height], [0, height]], np.float32)


class Video:
    """A generated video. Iterating gives uint8 RGB frames (H, W, 3); `truth` is whole once they have been taken."""

    def __init__(self, recipe: Recipe, words: Sequence[str], faces: Sequence[str | Path], seed: int = 0) -> None:
        self.recipe, self.words, self.faces = recipe, list(words), [str(face) for face in faces]
        self.random = np.random.default_rng(seed)
        total = recipe.frames * recipe.scenes
        steps = np.full(total, 1 / recipe.rate)
        if recipe.variable:
            steps = self.random.choice([0.5, 1.0, 1.0, 2.0, 4.0], total) / recipe.rate
        times = np.round(np.concatenate(([0.0], np.cumsum(steps))), 3)  # as containers keep them
        self.truth = Truth([], times.tolist())

    def __len__(self) -> int:
        return self.recipe.frames * self.recipe.scenes

    def __iter__(self) -> Iterator[np.ndarray]:
        self.truth.words.clear()
        for number in range(self.recipe.scenes):
            yield from self._scene(number * self.recipe.frames)
        self.truth.words[:] = [word for word in self.truth.words if word.quads]

    def _scene(self, first: int) -> Iterator[np.ndarray]:
        r, random = self.recipe, self.random
        wall = ground(random, *WORLD)
        signs = self._signs(first)
        path = _path(random, r)
        fixed = [s for s in signs if not s.drift.any() and s.shown == (0, r.frames)]
        for s in fixed:
            _paste(wall, s.picture, s.place)
        passing = [
            (random.uniform(0, r.size[1]), random.choice((-1, 1)) * random.uniform(4, 14), random.uniform(40, 160),
             random.uniform(20, 90, 3)) for _ in range(r.occluders)
        ]  # fmt: skip
        for frame in range(r.frames):
            scene = wall
            others = [s for s in signs if s not in fixed and s.shown[0] <= frame < s.shown[1]]
            camera = path[frame]
            picture = cv2.warpPerspective(scene, camera, r.size[::-1], flags=cv2.INTER_LINEAR)
            for s in others:
                _paste(picture, s.picture, camera @ _moved(s, frame))
            hidden = np.zeros(r.size, np.uint8)
            for start, step, wide, shade in passing:
                x = int((start + step * frame) % (r.size[1] + 2 * wide) - wide)
                x0, x1 = max(0, x), max(0, int(x + wide))
                picture[:, x0:x1] = shade
                hidden[:, x0:x1] = 1
            for s in signs:
                if s.shown[0] <= frame < s.shown[1]:
                    self._note(s, camera @ _moved(s, frame), first + frame, hidden)
            yield self._photographed(picture, path, frame)

    def _signs(self, first: int) -> list[_Sign]:
        r, random = self.recipe, self.random
        made, taken = [], np.zeros((0, 4))
        for number in range(r.signs + r.movers):
            count = int(random.choice([1, 1, 2, 2, 3]))
            lines = [[self._word() for _ in range(int(random.choice([1, 1, 2, 2, 3])))] for _ in range(count)]
            picture, quads = sign(random, lines, str(random.choice(self.faces)), int(random.integers(22, 60)))
            height, width = picture.shape[:2]
            moving = number >= r.signs
            for _ in range(50):
                x, y = random.uniform(60, WORLD[1] - width - 60), random.uniform(60, WORLD[0] - height - 60)
                box = np.array([x - 15, y - 15, x + width + 15, y + height + 15])
                apart = (
                    (box[2] < taken[:, 0]) | (box[0] > taken[:, 2]) | (box[3] < taken[:, 1]) | (box[1] > taken[:, 3])
                )
                if apart.all():
                    break
            else:
                continue
            taken = np.vstack([taken, box])
            place = _placed(random, x, y, height, width)
            drift = random.uniform(-3, 3, 2) * (1, 0.2) if moving else np.zeros(2)
            shown = (0, r.frames)
            if not moving and random.random() < r.hop:
                begin = int(random.integers(0, r.frames // 2))
                shown = (begin, min(r.frames, begin + int(random.integers(r.frames // 3, r.frames))))
            words = [TrueWord(word) for line in lines for word in line]
            self.truth.words += words
            made.append(_Sign(picture, quads, words, place, drift, shown))
        return made

    def _word(self) -> str:
        word = str(self.random.choice(self.words))
        return (word.upper, word.capitalize, word.lower)[self.random.integers(3)]()

    def _note(self, s: _Sign, matrix: np.ndarray, frame: int, hidden: np.ndarray) -> None:
        height, width = hidden.shape
        for quad, word in zip(s.quads, s.words):
            seen = cv2.perspectiveTransform(quad[None], matrix)[0]
            low, high = np.floor(seen.min(0)).astype(int), np.ceil(seen.max(0)).astype(int) + 1
            x0, y0, x1, y1 = max(0, low[0]), max(0, low[1]), min(width, high[0]), min(height, high[1])
            if x0 >= x1 or y0 >= y1:
                continue
            inside = (x1 - x0) * (y1 - y0) / max(1, (high[0] - low[0]) * (high[1] - low[1]))
            shown = inside * (1 - hidden[y0:y1, x0:x1].mean())
            tall = np.linalg.norm(seen[3] - seen[0])
            if shown >= SHOWN and tall >= LEAST:
                word.quads[frame] = seen.astype(np.float32)
                if shown >= 0.999:
                    word.whole.add(frame)

    def _photographed(self, picture: np.ndarray, path: np.ndarray, frame: int) -> np.ndarray:
        r = self.recipe
        before = path[max(0, frame - 1)]
        middle = np.array([r.size[1] / 2, r.size[0] / 2, 1.0])
        moved = path[frame] @ np.linalg.inv(before) @ middle
        shift = (moved[:2] / moved[2] - middle[:2]) * r.blur
        length = int(np.hypot(*shift))
        if length >= 2:
            kernel = np.zeros((2 * length + 1, 2 * length + 1), np.float32)
            end = (shift / 2).round().astype(int)
            cv2.line(kernel, (length - end[0], length - end[1]), (length + end[0], length + end[1]), 1.0)
            picture = cv2.filter2D(picture, -1, kernel / kernel.sum())
        noise = self.random.normal(0, r.noise, (r.size[0] // 2, r.size[1] // 2, 1)).astype(np.float32)
        noisy = picture + cv2.resize(noise, r.size[::-1])[..., None]
        return noisy.clip(0, 255).astype(np.uint8)


def _path(random: Random, r: Recipe) -> np.ndarray:
    """Wall to frame, for each frame of a scene: (F, 3, 3). Pans, zooms, turns, and shakes as a hand does."""
    height, width = r.size
    t, moving = np.arange(r.frames), min(1.0, r.speed / 4)
    zoom = (
        np.exp(np.linspace(0, moving * random.uniform(-0.25, 0.25), r.frames))
        * random.uniform(0.7, 1.15)
        * width
        / 1280
    )
    x = random.uniform(width, WORLD[1] - width) + random.choice((-1, 1)) * r.speed * (t - r.frames / 2)
    y = random.uniform(0.35, 0.65) * WORLD[0] + random.uniform(-0.3, 0.3) * r.speed * (t - r.frames / 2)
    turn = np.deg2rad(random.uniform(-3, 3) + moving * random.uniform(-2, 2) * np.sin(t / r.frames * 3))
    shake = 0.4 * r.speed
    x, y = x + shake * np.sin(t * random.uniform(0.1, 0.4)), y + shake * np.cos(t * random.uniform(0.1, 0.4))
    tilt = random.uniform(-1, 1, 2) * 1.2e-4
    path = np.zeros((r.frames, 3, 3))
    for i in range(r.frames):
        away = np.array([[1, 0, -x[i]], [0, 1, -y[i]], [0, 0, 1]])
        c, s = np.cos(turn[i]) * zoom[i], np.sin(turn[i]) * zoom[i]
        turned = np.array([[c, -s, 0], [s, c, 0], [tilt[0], tilt[1], 1]])
        back = np.array([[1, 0, width / 2], [0, 1, height / 2], [0, 0, 1]])
        path[i] = back @ turned @ away
    return path


def _placed(random: Random, x: float, y: float, height: int, width: int) -> np.ndarray:
    """Sign to wall: seldom quite straight."""
    angle = np.deg2rad(random.normal(0, 3))
    c, s = np.cos(angle), np.sin(angle)
    turned = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]])
    away = np.array([[1, 0, -width / 2], [0, 1, -height / 2], [0, 0, 1]])
    back = np.array([[1, 0, x + width / 2], [0, 1, y + height / 2], [0, 0, 1]])
    return back @ turned @ away


def _moved(s: _Sign, frame: int) -> np.ndarray:
    drift = np.array([[1, 0, s.drift[0] * frame], [0, 1, s.drift[1] * frame], [0, 0, 1]])
    return drift @ s.place


def _paste(picture: np.ndarray, part: np.ndarray, matrix: np.ndarray) -> None:
    """`part` onto `picture` through `matrix`, in place."""
    height, width = picture.shape[:2]
    corners = np.array([[0, 0], [part.shape[1], 0], [part.shape[1], part.shape[0]], [0, part.shape[0]]], np.float32)
    there = cv2.perspectiveTransform(corners[None], matrix)[0]
    x0, y0 = np.floor(there.min(0)).astype(int).clip(0)
    x1, y1 = np.minimum(np.ceil(there.max(0)).astype(int) + 1, (width, height))
    if x0 >= x1 or y0 >= y1:
        return
    shifted = np.array([[1, 0, -x0], [0, 1, -y0], [0, 0, 1]]) @ matrix
    size = (int(x1 - x0), int(y1 - y0))
    laid = cv2.warpPerspective(part, shifted, size, flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)
    mask = cv2.warpPerspective(np.full(part.shape[:2], 255, np.uint8), shifted, size)[..., None] / 255.0
    picture[y0:y1, x0:x1] = (laid * mask + picture[y0:y1, x0:x1] * (1 - mask)).astype(np.uint8)
