"""How well a crop can be read: what decides which of a word's frames are worth a read."""

from __future__ import annotations

import cv2
import numpy as np

ENOUGH = 32.0  # pixels of height beyond which a word does not get clearer
SHARP = 60.0  # variance of the Laplacian, over the contrast, of a crop in focus


def quality(grey: np.ndarray, quad: np.ndarray, scale: float = 1.0) -> float:
    """0 to 1: of a word's height in pixels, its sharpness and how much of it is in the frame.

    grey: uint8 (H, W), the whole frame, shrunk to `scale` of its size; quad (4, 2) in pixels of it. Sharpness is the
    variance of the Laplacian (Pech-Pacheco et al., ICPR 2000) of the crop at no more than 32 pixels of height, over its
    contrast.
    """
    height, width = grey.shape
    low, high = quad.min(0), quad.max(0)
    size = np.maximum(high - low, 1e-3)
    inside = np.clip((np.minimum(high, (width, height)) - np.maximum(low, 0)) / size, 0, 1)
    x0, y0 = np.floor(low).astype(int).clip(0)
    x1, y1 = np.ceil(high).astype(int).clip(0)
    part = grey[y0:y1, x0:x1]
    if min(part.shape) < 3:
        return 0.0
    side = float(min(_length(quad[3] - quad[0]), _length(quad[1] - quad[0])))
    if side > ENOUGH:
        part = cv2.resize(part, None, fx=ENOUGH / side, fy=ENOUGH / side, interpolation=cv2.INTER_AREA)
    contrast = max(float(part.std()), 4.0)
    sharp = float(cv2.Laplacian(part, cv2.CV_32F).var()) / contrast
    clear = min(1.0, side / scale / ENOUGH) ** 0.5 * (sharp / (sharp + SHARP / 4))
    return float(clear * inside.prod() ** 2)


def _length(side: np.ndarray) -> float:
    return float(np.hypot(side[0], side[1]))
