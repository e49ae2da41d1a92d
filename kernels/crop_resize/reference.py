"""The specification of crop_resize: rectify each quadrilateral (core.rectify), then resize it as Pillow does.

Pixels are integers up to 255 at every stage, so all implementations must give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import torch
from torch import Tensor

from clip4str.core.normalization import NORMALIZATION
from clip4str.core.rectify import BAND, Fetch, fetching, homographies, rectify

UNIT = 2**22  # Pillow's unit of weights


def crop_resize_reference(
    frame: Tensor,
    chroma: Tensor | None,
    quads: Tensor,
    size: tuple[int, int],
    *,
    layout: str = "rgb",
    normalization: str = "half",
    matrix: str = "bt601",
    full_range: bool = False,
    out: Tensor,
) -> Tensor:
    """api.crop_resize after validation. frame (Hf, Wf, 3), or luma (Hf, Wf) with chroma (Hf/2, Wf); quads (N, 4, 2)
    float32; all on the CPU."""
    planes = (frame.numpy(),) if chroma is None else (frame.numpy(), chroma.numpy())
    fetch = fetching(planes, layout, matrix, full_range)
    sizes, maps = homographies(quads.numpy())
    limits = (frame.shape[0], frame.shape[1])
    for row, (height, width), coefficients in zip(out, sizes.tolist(), maps):
        rows = partial(_rectified, fetch, limits, coefficients, width)
        row.copy_(normalised(resized(rows, (height, width), size), normalization))
    return out


def weights(length: int, count: int) -> Tensor:
    """Pillow's antialiased bicubic, `length` pixels -> `count`: (count, length) float64, whole numbers of 2^-22.

    Output i reads pixel p with weight cubic((p + 0.5 - center) / scale), center = (i + 0.5) length / count, scale =
    max(1, length / count), divided by the sum over the pixels that exist, rounded half away from zero.
    """
    i = torch.arange(count, dtype=torch.float64)[:, None] + 0.5
    p = torch.arange(length, dtype=torch.float64)[None, :] + 0.5
    t = ((p - i * (length / count)) / max(1.0, length / count)).abs()
    near, far = (1.5 * t - 2.5) * t * t + 1, -0.5 * (((t - 5) * t + 8) * t - 4)
    cubic = torch.where(t < 1, near, torch.where(t < 2, far, 0.0))
    share = cubic / cubic.sum(1, keepdim=True) * UNIT
    return torch.where(share < 0, (share - 0.5).ceil(), (share + 0.5).floor())


def _rounded(total: Tensor) -> Tensor:
    """Sums in units of 2^-22 -> pixels, integers in float64."""
    return ((total + UNIT // 2) / UNIT).floor().clamp(0, 255)


def _rectified(
    fetch: Fetch, frame: tuple[int, int], coefficients: np.ndarray, width: int, first: int, last: int
) -> np.ndarray:
    return rectify(fetch, frame, coefficients, first, last, width)


def resized(rows: Callable[[int, int], np.ndarray], length: tuple[int, int], size: tuple[int, int]) -> Tensor:
    """A picture as runtime.images.prepare resizes it: across, rounded, then down. (3, H, W) float32, whole numbers.

    rows(first, last): those rows, uint8 (last - first, width, 3). length, size: (height, width), before and after.
    """
    down, across = weights(length[0], size[0]), weights(length[1], size[1])
    total = torch.zeros((3, *size), dtype=torch.float64)
    for first in range(0, length[0], BAND):  # exact, in whatever order: far below 2^53
        last = min(first + BAND, length[0])
        band = torch.from_numpy(rows(first, last))
        total += down[:, first:last] @ _rounded(band.permute(2, 0, 1).double() @ across.T)
    return _rounded(total).float()


def normalised(whole: Tensor, normalization: str) -> Tensor:
    """(3, H, W) float32, 0..255 -> as the network takes it."""
    mean, std = (torch.tensor(v)[:, None, None] for v in NORMALIZATION[normalization])
    return (whole / 255 - mean) / std
