"""Where quads move from frame to frame, without searching words again: sparse optical flow.

Corners within each word are followed by pyramidal Lucas-Kanade, forth and back (Kalal et al., ICPR 2010: what does not
come back to where it started is dropped); those that stay move the quad by a similarity. How a word looks is kept, so
that it can be told in which frames it is still to be seen.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import cv2
import numpy as np

LONG_SIDE = 640  # pixels that a frame is shrunk to before it is followed
POINTS, SCENE_POINTS = 8, 32  # corners followed in a word; in the scene, for how the camera moves
BACK = 1.0  # pixels: how far a point may come back from where it started
LOOK = (12, 48)  # pixels of the picture that tells a word's looks
PARTS, OTHER = 8, 0.7  # along a look; how much one of them may differ, of its own contrast
LIKE = 0.5  # correlation of two looks of the same word, at least
WINDOW: dict[str, Any] = {
    "winSize": (11, 11),
    "maxLevel": 3,
    "criteria": (cv2.TERM_CRITERIA_EPS | cv2.TERM_CRITERIA_COUNT, 12, 0.03),
}


class Small(NamedTuple):
    """A frame as it is followed: grey uint8 (h, w), and pixels of it per pixel of the frame."""

    grey: np.ndarray
    scale: float


class Moved(NamedTuple):
    """quads (N, 4, 2), followed bool (N,): by its own points, not with the scene; camera: (2, 3) in pixels of the
    frame, how the scene moves; motion: median of all points, pixels of the frame; coherent: share of the scene's points
    that could be followed."""

    quads: np.ndarray
    followed: np.ndarray
    camera: np.ndarray
    motion: float
    coherent: float


_lucas_kanade: Any = cv2.calcOpticalFlowPyrLK  # its stubs want points where none are taken
STILL = np.eye(2, 3, dtype=np.float32)


def small(grey: np.ndarray) -> Small:
    scale = min(1.0, LONG_SIDE / max(grey.shape))
    if scale < 1:
        size = (max(1, round(grey.shape[1] * scale)), max(1, round(grey.shape[0] * scale)))
        return Small(cv2.resize(grey, size, interpolation=cv2.INTER_AREA), scale)
    return Small(grey.copy(), scale)  # the source may write its next frame into the same memory


def follow(before: Small, after: Small, quads: np.ndarray, scene: bool = True) -> Moved:
    """Where the quads (N, 4, 2) of the frame `before` are in `after`; the frames are of one size, in either order.
    scene=False leaves the camera's motion out: what has no points of its own stays where it is, not followed."""
    groups = [_scene(before.grey, quads * before.scale) if scene else np.zeros((0, 1, 2), np.float32)]
    for quad in quads * before.scale:
        groups.append(_corners(before.grey, quad))
    start = np.concatenate(groups).astype(np.float32)
    if len(start) == 0:
        return Moved(quads.copy(), np.zeros(len(quads), bool), STILL, 0.0, 1.0)
    end, good = _followed(before.grey, after.grey, start)
    owner = np.repeat(np.arange(len(groups)), [len(group) for group in groups])
    of_scene = owner == 0
    camera = _similarity(start[good & of_scene], end[good & of_scene], before.scale)
    moved, followed = quads.astype(np.float32).copy(), np.zeros(len(quads), bool)
    for i in range(len(quads)):
        mine = good & (owner == i + 1)
        matrix = _similarity(start[mine], end[mine], before.scale)
        followed[i] = matrix is not None
        if matrix is None:
            matrix = camera
        if matrix is not None:
            moved[i] = carried(quads[i], matrix)
    steps = np.linalg.norm(end[good] - start[good], axis=-1).ravel()
    motion = float(np.median(steps)) / before.scale if len(steps) else 0.0
    coherent = float(good[of_scene].mean()) if of_scene.any() else 1.0
    return Moved(moved, followed, STILL if camera is None else camera, motion, coherent)


def carried(quad: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """A quad moved by a (2, 3) map of the frame's pixels."""
    return (quad @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32)


def _scene(grey: np.ndarray, quads: np.ndarray) -> np.ndarray:
    """(n, 1, 2): good corners all over the small frame, beside the words if there are enough: words move, and change.
    Sought in half of its size, in a tenth of the time: they are to be anywhere, not at the very peak."""
    half = cv2.resize(grey, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA) if min(grey.shape) > 8 else grey
    scale = np.array(grey.shape[::-1], np.float32) / np.array(half.shape[::-1], np.float32)
    beside = np.full(half.shape, 255, np.uint8)
    for quad in quads / scale:
        cv2.fillConvexPoly(beside, quad.round().astype(np.int32), 0)
    found = cv2.goodFeaturesToTrack(half, SCENE_POINTS, 0.01, 10, mask=beside)
    if found is None or len(found) < SCENE_POINTS // 4:
        found = cv2.goodFeaturesToTrack(half, SCENE_POINTS, 0.01, 10)
    return np.zeros((0, 1, 2), np.float32) if found is None else (found + 0.5) * scale - 0.5


def _corners(grey: np.ndarray, quad: np.ndarray) -> np.ndarray:
    """(n, 1, 2): good corners to follow within a quad of the small frame."""
    x0, y0 = np.floor(quad.min(0)).astype(int).clip(0)
    x1, y1 = (np.ceil(quad.max(0)).astype(int) + 1).clip(0)
    part = grey[y0:y1, x0:x1]
    if min(part.shape) < 3:
        return np.zeros((0, 1, 2), np.float32)
    found = cv2.goodFeaturesToTrack(part, POINTS, 0.02, 3)
    return np.zeros((0, 1, 2), np.float32) if found is None else found + np.array([x0, y0], np.float32)


def _followed(before: np.ndarray, after: np.ndarray, start: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Where points (n, 1, 2) go, and which of them come back."""
    end, ok, _ = _lucas_kanade(before, after, start, None, **WINDOW)
    back, returned, _ = _lucas_kanade(after, before, end, None, **WINDOW)
    error = np.linalg.norm(back - start, axis=-1).ravel()
    height, width = after.shape
    inside = ((end >= 0) & (end < (width, height))).all(-1).ravel()
    return end, (ok.ravel() == 1) & (returned.ravel() == 1) & (error < BACK) & inside


def _similarity(start: np.ndarray, end: np.ndarray, scale: float) -> np.ndarray | None:
    """(2, 3), in pixels of the frame: turn, scale and shift that most of the points agree on; None for fewer than
    three."""
    if len(start) < 3:
        return None
    matrix, inliers = cv2.estimateAffinePartial2D(
        start, end, method=cv2.RANSAC, ransacReprojThreshold=1.5, maxIters=100
    )
    if matrix is None or inliers.sum() < 3:
        return None
    stretch = float(np.hypot(matrix[0, 0], matrix[1, 0]))
    if not 0.8 < stretch < 1.25:
        return None
    matrix[:, 2] /= scale
    return matrix.astype(np.float32)


def look(frame: Small, quad: np.ndarray) -> np.ndarray:
    """float32 (12 * 48,): how a quad's inside looks, its brightness and contrast aside."""
    target = np.array([[0, 0], [LOOK[1], 0], [LOOK[1], LOOK[0]], [0, LOOK[0]]], np.float32)
    matrix = cv2.getPerspectiveTransform((quad * frame.scale).astype(np.float32), target)
    seen = cv2.warpPerspective(frame.grey, matrix, LOOK[::-1], flags=cv2.INTER_AREA, borderMode=cv2.BORDER_REPLICATE)
    values = seen.astype(np.float32).ravel()
    values -= values.mean()
    return values / max(float(np.linalg.norm(values)), 1e-3)


def alike(a: np.ndarray, b: np.ndarray) -> bool:
    """May two looks be of one word? Loose: one letter of it may be another."""
    return float(a @ b) >= LIKE


def same_letters(a: np.ndarray, b: np.ndarray) -> bool:
    """Do two looks of a word agree everywhere along it? Not where one of its letters is another."""
    parts = [value.reshape(LOOK[0], PARTS, -1).transpose(1, 0, 2).reshape(PARTS, -1) for value in (a, b)]
    strength = np.maximum(*(np.linalg.norm(part, axis=1) for part in parts))
    return bool((np.linalg.norm(parts[0] - parts[1], axis=1) <= OTHER * np.maximum(strength, 0.2)).all())
