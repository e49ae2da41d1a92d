"""From a detection network's probability map to rectangles: the post-processing of Differentiable Binarization (Liao et
al., AAAI 2020), with minimal-area rectangles."""

from __future__ import annotations

import cv2
import numpy as np

THRESHOLD, LEAST_SCORE = 0.3, 0.5  # of a pixel, of a box's mean: PP-OCR's
GROW = 1.6  # the network learned shrunken boxes; a rectangle grows by area * GROW / perimeter on every side
LEAST_SIDE = 3.0  # pixels of the map
MOST = 1000  # boxes of a frame


def boxes(map: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Lines of text in a map (h, w) float32 of probabilities, of a frame of size (height, width).

    Quads float32 (N, 4, 2) in the frame's pixels, from the top-left corner clockwise, and their scores (N,).
    """
    scale = np.array([size[1] / map.shape[1], size[0] / map.shape[0]], np.float32)
    ink = cv2.dilate((map > THRESHOLD).astype(np.uint8), np.ones((2, 2), np.uint8))
    contours, _ = cv2.findContours(ink, cv2.RETR_LIST, cv2.CHAIN_APPROX_SIMPLE)
    quads, scores = [], []
    for contour in sorted(contours, key=cv2.contourArea, reverse=True)[:MOST]:
        centre, (width, height), angle = cv2.minAreaRect(contour)
        if min(width, height) < LEAST_SIDE:
            continue
        score = _mean(map, contour)
        if score < LEAST_SCORE:
            continue
        grown = width * height * GROW / (width + height)
        corners = cv2.boxPoints((centre, (width + grown, height + grown), angle))
        quads.append(clockwise(corners) * scale)
        scores.append(score)
    return np.array(quads, np.float32).reshape(-1, 4, 2), np.array(scores, np.float32)


def _mean(map: np.ndarray, contour: np.ndarray) -> float:
    x, y, width, height = cv2.boundingRect(contour)
    mask = np.zeros((height, width), np.uint8)
    cv2.fillPoly(mask, [contour.reshape(-1, 2) - (x, y)], 1)
    return cv2.mean(map[y : y + height, x : x + width], mask)[0]


def clockwise(corners: np.ndarray) -> np.ndarray:
    """(4, 2) corners of a rectangle from its top-left one on: the upper of the two leftmost, as PP-OCR has it."""
    ranked = corners[np.argsort(corners[:, 0], kind="stable")]
    left = ranked[:2][np.argsort(ranked[:2, 1], kind="stable")]
    right = ranked[2:][np.argsort(ranked[2:, 1], kind="stable")]
    return np.array([left[0], right[0], right[1], left[1]], np.float32)
