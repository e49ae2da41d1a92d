"""Bends, slants, rotations and perspective of a text box, drawn in one resampling step."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
from PIL import Image

Box = tuple[float, float, float, float]  # left, top, right, bottom


@dataclass
class Warp:
    """Where each point of a flat text box goes: first a bend, then the projective map `matrix` (3x3).

    The box is width x height pixels with its centre at (0, 0), y pointing down. bend: angle of the arc in
    radians, positive arches upwards. sag: depth of a parabola in pixels, used when bend is 0.
    """

    width: float
    height: float
    bend: float
    sag: float
    matrix: np.ndarray

    def scaled(self, width: float, height: float, scale: float) -> Warp:
        """The same warp for a box drawn `scale` times as large, of exactly width x height pixels."""
        matrix = np.diag([scale, scale, 1.0]) @ self.matrix @ np.diag([1 / scale, 1 / scale, 1.0])
        return Warp(width, height, self.bend, self.sag * scale, matrix)

    def forward(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Points of the flat box -> points of the warped one."""
        if self.bend:
            sign, radius = math.copysign(1, self.bend), self.width / abs(self.bend)
            r, phi = radius - sign * y, x / radius
            x, y = r * np.sin(phi), sign * (radius - r * np.cos(phi))
        elif self.sag:
            y = y + self.sag * (2 * x / self.width) ** 2
        return project(self.matrix, x, y)

    def backward(self, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """The inverse of `forward`."""
        x, y = project(np.linalg.inv(self.matrix), x, y)
        if self.bend:
            sign, radius = math.copysign(1, self.bend), self.width / abs(self.bend)
            y = sign * y
            phi, r = np.arctan2(x, radius - y), np.hypot(x, radius - y)
            x, y = phi * radius, sign * (radius - r)
        elif self.sag:
            y = y - self.sag * (2 * x / self.width) ** 2
        return x, y

    def extent(self) -> Box:
        """Bounding box of the warped text box."""
        edge = np.linspace(-0.5, 0.5, 9) * self.width
        side = np.full(9, self.height / 2)
        x, y = self.forward(np.concatenate([edge, edge]), np.concatenate([side, -side]))
        return float(x.min()), float(y.min()), float(x.max()), float(y.max())

    def apply(self, layer: Image.Image, centre: tuple[float, float], crop: Box, size: tuple[int, int]) -> Image.Image:
        """The area `crop` of the warped plane, as a picture of `size` (width, height).

        centre: where the middle of the text box lies in `layer`.
        """
        (wide, high), (left, top, right, bottom) = size, crop
        to_target = np.array([[(right - left) / wide, 0, left], [0, (bottom - top) / high, top], [0, 0, 1]])
        bicubic = Image.Resampling.BICUBIC
        if not self.bend and not self.sag:
            to_layer = np.array([[1, 0, centre[0]], [0, 1, centre[1]], [0, 0, 1]])
            m = to_layer @ np.linalg.inv(self.matrix) @ to_target
            return layer.transform(size, Image.Transform.PERSPECTIVE, (m / m[2, 2]).ravel()[:8].tolist(), bicubic)
        # A curve is a mesh of quadrilaterals; straight across the line of text, so two rows are enough.
        columns, rows = max(4, min(20, wide // 8)), 2
        xs, ys = np.linspace(0, wide, columns + 1).round(), np.linspace(0, high, rows + 1).round()
        gx, gy = np.meshgrid(xs, ys)
        sx, sy = self.backward(*project(to_target, gx, gy))
        corners = np.stack([sx + centre[0], sy + centre[1]], axis=-1)  # [rows + 1, columns + 1, 2]
        around = (corners[:-1, :-1], corners[1:, :-1], corners[1:, 1:], corners[:-1, 1:])
        quads = np.concatenate(around, axis=-1).reshape(-1, 8).tolist()
        x, y = xs.astype(int).tolist(), ys.astype(int).tolist()
        boxes = [(x[i], y[j], x[i + 1], y[j + 1]) for j in range(rows) for i in range(columns)]
        return layer.transform(size, Image.Transform.MESH, list(zip(boxes, quads)), bicubic)


def project(matrix: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    (a, b, c), (d, e, f), (g, h, i) = matrix.tolist()
    w = g * x + h * y + i
    return (a * x + b * y + c) / w, (d * x + e * y + f) / w


def random_warp(rng: random.Random, width: float, height: float) -> Warp:
    """Bend, stretch, slant, rotation and perspective as found on crops, for a box of width x height."""
    bend = sag = 0.0
    aspect = width / height
    u = rng.random()
    if u < 0.13 and aspect > 1.6:
        most = min(2.9, 0.75 * aspect)  # the inner side of the arc must not shrink to a point
        bend = rng.uniform(0.25, 1) * most * rng.choice((1, 1, 1, -1))
    elif u < 0.19 and aspect > 1.6:
        sag = rng.uniform(-0.4, 0.4) * height * min(1.5, aspect / 3)
    stretch = math.exp(rng.gauss(0, 0.12 if rng.random() < 0.7 else 0.3))
    slant = rng.gauss(0, 0.12) if rng.random() < 0.35 else 0.0
    v = rng.random()
    spread = 0.0 if v < 0.3 else 2.5 if v < 0.7 else 6.0
    angle = math.radians(rng.gauss(0, spread) if v < 0.93 else rng.uniform(-32, 32))
    c, s = math.cos(angle), math.sin(angle)
    matrix = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[stretch, slant, 0], [0, 1, 0], [0, 0, 1]])
    if rng.random() < 0.3:  # a wall seen from the side: lines climb, letters stay upright
        matrix = np.array([[1, 0, 0], [rng.gauss(0, 0.11), 1, 0], [0, 0, 1]]) @ matrix
    if rng.random() < 0.4:  # one end nearer than the other
        px = min(0.4, max(-0.4, rng.gauss(0, 0.17))) / (width / 2)
        py = min(0.2, max(-0.2, rng.gauss(0, 0.08))) / (height / 2)
        matrix = np.array([[1, 0, 0], [0, 1, 0], [px, py, 1]]) @ matrix
    return Warp(width, height, bend, sag, matrix)
