"""The specification of crop_resize in plain torch: rectify each quadrilateral, then resize it as Pillow does.

Pixels are integers up to 255 at every stage, so all implementations must give the same bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from clip4str.core.normalization import NORMALIZATION

from .config import MOST_SIDE, yuv_matrix

FAR = 65536.0  # pixels; corners are clamped to +-FAR
BAND = 512  # rows of a crop processed at a time
STEPS = 256  # per pixel: positions of the bilinear fetch
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
    float32 on the frame's device."""
    if chroma is not None:
        pixels = nv12_to_rgb(frame, chroma, matrix, full_range)
    else:
        pixels = frame.flip(-1) if layout == "bgr" else frame
    mean, std = (torch.tensor(v, device=frame.device)[:, None, None] for v in NORMALIZATION[normalization])
    sizes, maps = homographies(quads)
    for row, (height, width), coefficients in zip(out, sizes.tolist(), maps):
        row.copy_((_resize(pixels, (height, width), coefficients, size) / 255 - mean) / std)
    return out


def nv12_to_rgb(luma: Tensor, chroma: Tensor, matrix: str, full_range: bool) -> Tensor:
    """(H, W), (H/2, W) interleaved U, V -> (H, W, 3) uint8. The four pixels of a square share its chroma sample."""
    black, scale, rv, gu, gv, bu = yuv_matrix(matrix, full_range)
    uv = chroma.reshape(chroma.shape[0], -1, 2).repeat_interleave(2, 0).repeat_interleave(2, 1).to(torch.int32) - 128
    y = scale * (luma.to(torch.int32) - black) + 2**19
    u, v = uv.unbind(-1)
    return torch.stack((y + rv * v, y + gu * u + gv * v, y + bu * u), -1).bitwise_right_shift(20).clamp(0, 255).byte()


def homographies(quads: Tensor) -> tuple[Tensor, Tensor]:
    """(N, 4, 2) -> sizes (N, 2) int32: height, width of the rectified crops; maps (N, 8) float32: a b d e g h x0 y0.

    Crop pixel (u, v) lies at frame position, with U = u + 0.5, V = v + 0.5,
        x = x0 + (a U + b V) / (g U + h V + 1),  y = y0 + (d U + e V) / (g U + h V + 1).
    (Heckbert, Fundamentals of Texture Mapping, 1989, section 2.2.3, for a rectangle instead of the unit square.)
    Never NaN: NaN corners become 0, others are clamped to +-FAR; quads without a homography count as parallelograms.
    """
    corners = torch.where(quads == quads, quads, 0.0).clamp(-FAR, FAR)
    x0, y0 = corners[:, 0].unbind(-1)
    (x1, y1), (x2, y2), (x3, y3) = ((corners[:, i] - corners[:, 0]).unbind(-1) for i in (1, 2, 3))
    width = _side(torch.maximum(_square(x1, y1), _square(x2 - x3, y2 - y3)))
    height = _side(torch.maximum(_square(x3, y3), _square(x2 - x1, y2 - y1)))
    ax, ay, bx, by, sx, sy = x1 - x2, y1 - y2, x3 - x2, y3 - y2, x2 - x1 - x3, y2 - y1 - y3
    determinant = ax * by - bx * ay
    proper = determinant.abs() > 1e-3
    determinant = torch.where(proper, determinant, 1.0)
    g = torch.where(proper, (sx * by - bx * sy) / determinant, 0.0)
    h = torch.where(proper, (ax * sy - sx * ay) / determinant, 0.0)
    a, d, b, e = x1 + g * x1, y1 + g * y1, x3 + h * x3, y3 + h * y3
    w, t = width.to(g.dtype), height.to(g.dtype)
    return torch.stack((height, width), -1), torch.stack((a / w, b / t, d / w, e / t, g / w, h / t, x0, y0), -1)


def _square(x: Tensor, y: Tensor) -> Tensor:
    return x * x + y * y


def _side(square: Tensor) -> Tensor:
    return (square.sqrt() + 0.5).floor().clamp(1, MOST_SIDE).to(torch.int32)


def rectify(pixels: Tensor, coefficients: Tensor, first: int, last: int, width: int) -> Tensor:
    """Rows first to last of the rectified crop, (last - first, width, 3) uint8: bilinear, frame edge repeated.

    Positions are rounded to 1/256 pixel first: where all are integers the fetch is exact.
    """
    a, b, d, e, g, h, x0, y0 = coefficients
    u = torch.arange(width, device=pixels.device)[None, :] + 0.5
    v = torch.arange(first, last, device=pixels.device)[:, None] + 0.5
    inverse = 1 / (g * u + h * v + 1.0).clamp(min=1e-6)  # less only behind the horizon
    x = _fixed(x0 + (a * u + b * v) * inverse, pixels.shape[1])
    y = _fixed(y0 + (d * u + e * v) * inverse, pixels.shape[0])
    total = torch.zeros((*x.shape, 3), dtype=torch.int32, device=pixels.device)
    for j in (0, 1):
        for i in (0, 1):
            weight = (STEPS - x % STEPS if i == 0 else x % STEPS) * (STEPS - y % STEPS if j == 0 else y % STEPS)
            column = (x // STEPS + i).clamp(0, pixels.shape[1] - 1)
            row = (y // STEPS + j).clamp(0, pixels.shape[0] - 1)
            total += weight[..., None] * pixels[row, column]
    return ((total + STEPS * STEPS // 2) // (STEPS * STEPS)).byte()


def _fixed(position: Tensor, limit: int) -> Tensor:
    """Left or upper neighbour of a position, counted from pixel centres, in units of 1/256."""
    return ((position - 0.5).clamp(-1.0, float(limit)) * STEPS + 0.5).floor().to(torch.int32)


def weights(length: int, count: int, device: torch.device) -> Tensor:
    """Pillow's antialiased bicubic, `length` pixels -> `count`: (count, length) float64, integers in units of 2^-22.

    Output i reads pixel p with weight cubic((p + 0.5 - center) / scale), center = (i + 0.5) length / count, scale =
    max(1, length / count), divided by the sum over the pixels that exist, rounded half away from zero.
    """
    i = torch.arange(count, dtype=torch.float64, device=device)[:, None] + 0.5
    p = torch.arange(length, dtype=torch.float64, device=device)[None, :] + 0.5
    t = ((p - i * (length / count)) / max(1.0, length / count)).abs()
    near, far = (1.5 * t - 2.5) * t * t + 1, -0.5 * (((t - 5) * t + 8) * t - 4)
    cubic = torch.where(t < 1, near, torch.where(t < 2, far, 0.0))
    share = cubic / cubic.sum(1, keepdim=True) * UNIT
    return torch.where(share < 0, (share - 0.5).ceil(), (share + 0.5).floor())


def _rounded(total: Tensor) -> Tensor:
    """Sums in units of 2^-22 -> pixels, integers in float64."""
    return ((total + UNIT // 2) / UNIT).floor().clamp(0, 255)


def _resize(pixels: Tensor, crop: tuple[int, int], coefficients: Tensor, size: tuple[int, int]) -> Tensor:
    """(3, H, W) float32, integers 0..255: horizontally, rounded, then vertically, as runtime.images.prepare."""
    down, across = weights(crop[0], size[0], pixels.device), weights(crop[1], size[1], pixels.device)
    total = torch.zeros((3, *size), dtype=torch.float64, device=pixels.device)
    for first in range(0, crop[0], BAND):  # exact in any order: far below 2^53
        last = min(first + BAND, crop[0])
        rows = rectify(pixels, coefficients, first, last, crop[1]).permute(2, 0, 1).double()  # [3, band, w]
        total += down[:, first:last] @ _rounded(rows @ across.T)
    return _rounded(total).float()
