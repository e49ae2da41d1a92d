"""Areas of quads and how they overlap."""

from __future__ import annotations

import cv2
import numpy as np

from clip4str.core.rectify import LEAST_SIDE, LEAST_SINE, MOST_SIDE


def area(quad: np.ndarray) -> float:
    """Of a convex quad (4, 2), pixels squared."""
    return abs(float(cv2.contourArea(quad.astype(np.float32))))


def overlaps(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Areas that quads a (N, 4, 2) and b (M, 4, 2) share: (N, M) float32."""
    shared = np.zeros((len(a), len(b)), np.float32)
    if not shared.size:
        return shared
    touching = ((a.min(1)[:, None] < b.max(1)[None]) & (b.min(1)[None] < a.max(1)[:, None])).all(-1)
    for i, j in zip(*np.nonzero(touching)):
        shared[i, j] = cv2.intersectConvexConvex(a[i].astype(np.float32), b[j].astype(np.float32))[0]
    return shared


def pairs(a: np.ndarray, b: np.ndarray, least: float) -> tuple[list[tuple[int, int]], np.ndarray]:
    """Which of a is which of b, the pairs that overlap most first; and the areas shared.

    least: of what two share over what they cover together.
    """
    shared = overlaps(a, b)
    of_a = np.array([area(quad) for quad in a], np.float32)
    of_b = np.array([area(quad) for quad in b], np.float32)
    union = of_a[:, None] + of_b[None] - shared
    ratio = shared / np.maximum(union, 1e-6)
    found: list[tuple[int, int]] = []
    while ratio.size and ratio.max() >= least:
        i, j = np.unravel_index(int(ratio.argmax()), ratio.shape)
        found.append((int(i), int(j)))
        ratio[i], ratio[:, j] = -1, -1
    return found, shared


def sound(quads: np.ndarray) -> np.ndarray:
    """bool (N,): quads that can be cut out: convex, clockwise, of a size that is one."""
    finite = np.isfinite(quads).all((1, 2))
    quads = np.where(finite[:, None, None], quads, 0)
    sides = np.roll(quads, -1, 1) - quads
    lengths = np.hypot(sides[..., 0], sides[..., 1])
    ahead = np.roll(sides, -1, 1)
    turns = sides[..., 0] * ahead[..., 1] - sides[..., 1] * ahead[..., 0]
    sines = turns / np.maximum(lengths * np.roll(lengths, -1, 1), 1e-9)
    least = np.minimum(lengths[:, 0::2].max(1), lengths[:, 1::2].max(1))
    return finite & (least >= LEAST_SIDE + 1) & (lengths.max(1) < MOST_SIDE - 1) & (sines > 10 * LEAST_SINE).all(1)
