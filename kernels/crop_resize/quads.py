"""Checks quadrilaterals given on the host, before anything is launched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clip4str.core.errors import DtypeError, ShapeError

from .config import LEAST_SIDE, MOST_SIDE

Quads = Tensor | np.ndarray | Sequence[Any]
LEAST_SINE = 1e-3  # of a corner's angle: below it float32 has no precision left for the homography


def host_quads(quads: Quads, frame: tuple[int, int]) -> Tensor:
    """(N, 4, 2) float32 on the CPU, checked. frame: height, width. Raises ShapeError naming the first bad quad."""
    try:
        array = np.asarray(quads)
        array = np.empty((0, 4, 2)) if array.shape == (0,) else array
    except ValueError:  # a ragged list
        raise ShapeError("quads: expected shape (N, 4, 2), got lists of unequal length") from None
    if array.dtype.kind not in "iuf":
        raise DtypeError(f"quads: expected numbers, got {array.dtype}")
    if array.ndim != 3 or array.shape[1:] != (4, 2):
        raise ShapeError(f"quads: expected shape (N, 4, 2), got {array.shape}")
    points = array.astype(np.float64)
    for wrong, reason in _faults(points, frame):
        if wrong.any():
            index = int(wrong.argmax())
            corners = " ".join(f"({x:g}, {y:g})" for x, y in points[index])
            raise ShapeError(f"quad {index} of {len(points)}: {reason}, got {corners}")
    return torch.from_numpy(points.astype(np.float32))


def _faults(points: np.ndarray, frame: tuple[int, int]) -> list[tuple[np.ndarray, str]]:
    """Masks of wrong quads, each with the reason, gravest first."""
    height, width = frame
    finite = np.isfinite(points).all((1, 2))
    p = np.where(finite[:, None, None], points, 0.0)
    sides = np.roll(p, -1, 1) - p  # top, right, bottom, left
    lengths = np.hypot(sides[..., 0], sides[..., 1])
    ahead = np.roll(sides, -1, 1)
    turns = sides[..., 0] * ahead[..., 1] - sides[..., 1] * ahead[..., 0]
    sines = turns / np.maximum(lengths * np.roll(lengths, -1, 1), 1e-30)
    across, down = lengths[:, 0::2].max(1), lengths[:, 1::2].max(1)
    low, high = p.min(1), p.max(1)
    outside = (high <= 0).any(1) | (low[:, 0] >= width) | (low[:, 1] >= height)
    small = (np.floor(across + 0.5) < LEAST_SIDE) | (np.floor(down + 0.5) < LEAST_SIDE)
    large = (np.floor(across + 0.5) > MOST_SIDE) | (np.floor(down + 0.5) > MOST_SIDE)
    return [
        (~finite, "corners are finite numbers of pixels"),
        (large, f"sides are at most {MOST_SIDE} pixels long"),
        (small, f"sides are at least {LEAST_SIDE} pixels long"),
        ((sines < -LEAST_SINE).all(1), "corners go clockwise: top-left, top-right, bottom-right, bottom-left"),
        ((sines < LEAST_SINE).any(1), "convex, sides not crossing, no three corners in a line"),
        (outside, f"some of it lies in the frame of {width}x{height} pixels"),
    ]
