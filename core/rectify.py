"""Words cut out of a frame: quadrilaterals, rectified. In numpy, and the specification of kernels/crop_resize.

Pixels are whole numbers up to 255 at every stage, so every implementation can and shall give the same bits.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from .errors import DtypeError, ShapeError
from .planes import chosen_matrix, host_planes

LEAST_SIDE, MOST_SIDE = 2, 8192  # pixels of a rectified crop; 2 * MOST_SIDE to the cube must stay far below 2^63
TALL = 1.5
LEAST_SINE = 1e-3  # of a quad's angle: below it the homography has no digits left in float32
FAR = 65536.0  # pixels; corners beyond it are moved there
BAND = 512  # rows of a crop that are worked on at a time
STEPS = 256  # positions between two pixels that the bilinear fetch knows

Fetch = Callable[[np.ndarray, np.ndarray], np.ndarray]  # rows, columns (h, w) -> int32 RGB (3, h, w)


def rectified(frame: Any, quads: Any, layout: str = "rgb", matrix: str | None = None, full_range: bool = False
              ) -> Iterator[np.ndarray]:  # fmt: skip
    """Each quadrilateral of a frame as a rectangle, uint8 (h, w, 3) RGB, of the size of its longer sides.

    frame: uint8 (H, W, 3), for "nv12" (H * 3 / 2, W) or the pair of luma and chroma; any strides. quads: (N, 4, 2).
    matrix, full_range: of NV12; matrix None: by planes.chosen_matrix. What is computed: kernels/crop_resize/api.py.
    Raises, before the first, ShapeError (for quads with their index), DtypeError, ImageError, UsageError.
    """
    planes = host_planes(frame, layout)
    limits = (planes[0].shape[0], planes[0].shape[1])
    matrix = chosen_matrix(matrix, limits)
    fetch = fetching(planes, layout, matrix, full_range)
    sizes, maps = homographies(checked_quads(quads, limits))

    def crop(size: np.ndarray, coefficients: np.ndarray) -> np.ndarray:
        height, width = size.tolist()
        out = np.empty((height, width, 3), np.uint8)
        for first in range(0, height, BAND):
            last = min(first + BAND, height)
            out[first:last] = rectify(fetch, limits, coefficients, first, last, width)
        return out

    return map(crop, sizes, maps)


def fetching(planes: tuple[np.ndarray, ...], layout: str, matrix: str = "bt601", full_range: bool = False) -> Fetch:
    """How a frame's pixels are had in RGB. planes: (H, W, 3), or luma (H, W) and chroma (H / 2, W)."""
    if layout != "nv12":
        pixels, pitch = _flat(planes[0])
        channels = (2, 1, 0) if layout == "bgr" else (0, 1, 2)

        def coloured(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
            place = rows * pitch + 3 * columns
            return np.stack([pixels.take(place + channel) for channel in channels]).astype(np.int32)

        return coloured
    (luma, of_luma), (chroma, of_chroma) = _flat(planes[0]), _flat(planes[1])

    def fetch(rows: np.ndarray, columns: np.ndarray) -> np.ndarray:
        y, place = luma.take(rows * of_luma + columns), (rows >> 1) * of_chroma + (columns & ~1)
        return _converted(y, chroma.take(place), chroma.take(place + 1), matrix, full_range)

    return fetch


def _flat(plane: np.ndarray) -> tuple[np.ndarray, np.intp]:
    """All bytes of a plane (H, W) or (H, W, 3) in one row, and how many lie from row to row: `take` from it is several
    times as fast as indexing rows and columns."""
    width = plane[0].size
    whole = plane if plane[0].flags.c_contiguous and plane.strides[0] >= width else np.ascontiguousarray(plane)
    pitch = whole.strides[0]
    length = (len(whole) - 1) * pitch + width
    return np.lib.stride_tricks.as_strided(whole, (length,), (1,), writeable=False), np.intp(pitch)


def nv12_to_rgb(luma: np.ndarray, chroma: np.ndarray, matrix: str, full_range: bool) -> np.ndarray:
    """(H, W), (H / 2, W) interleaved U, V -> (H, W, 3) uint8. The four pixels of a square share its chroma sample."""
    rows, columns = np.mgrid[: luma.shape[0], : luma.shape[1]]
    planar = fetching((luma, chroma), "nv12", matrix, full_range)(rows, columns).astype(np.uint8)
    return np.ascontiguousarray(planar.transpose(1, 2, 0))


def _converted(luma: np.ndarray, u: np.ndarray, v: np.ndarray, matrix: str, full_range: bool) -> np.ndarray:
    black, scale, rv, gu, gv, bu = yuv_matrix(matrix, full_range)
    y = scale * (luma.astype(np.int32) - black) + 2**19
    u, v = u.astype(np.int32) - 128, v.astype(np.int32) - 128
    return (np.stack((y + rv * v, y + gu * u + gv * v, y + bu * u)) >> 20).clip(0, 255)


def yuv_matrix(matrix: str, full_range: bool) -> tuple[int, int, int, int, int, int]:
    """YUV to RGB in units of 2^-20: black, luma, red of V, green of U, green of V, blue of U.

    R = (luma (Y - black) + red (V - 128)) / 2^20, rounded half up, cut to 0..255; G and B alike. From ITU-R BT.601
    and BT.709: limited range has Y in 16..235 and U, V in 16..240, full range 0..255. One colour in 5,000 is a
    level off for that, within 0.0002 of a tie.
    """
    kr, kb = {"bt601": (0.299, 0.114), "bt709": (0.2126, 0.0722)}[matrix]
    kg = 1 - kr - kb
    y, c = (1.0, 2.0) if full_range else (255 / 219, 2 * 255 / 224)
    weights = (y, c * (1 - kr), -c * (1 - kb) * kb / kg, -c * (1 - kr) * kr / kg, c * (1 - kb))
    return (0 if full_range else 16, *(round(2**20 * w) for w in weights))  # type: ignore[return-value]


def homographies(quads: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """(N, 4, 2) float32 -> sizes (N, 2) int32: height, width of the rectified crops; maps (N, 8) float32: a b d e g h
    x0 y0.

    Crop pixel (u, v) lies at frame position, with U = u + 0.5, V = v + 0.5,
        x = x0 + (a U + b V) / (g U + h V + 1),  y = y0 + (d U + e V) / (g U + h V + 1).
    (Heckbert, Fundamentals of Texture Mapping, 1989, section 2.2.3, for a rectangle instead of the unit square.)
    Never NaN: bad corners are moved (NaN to 0, the rest into +-FAR); no homography: taken for a parallelogram.
    """
    corners = np.where(np.isnan(quads), np.float32(0), quads).astype(np.float32).clip(-FAR, FAR)
    x0, y0 = corners[:, 0].T
    (x1, y1), (x2, y2), (x3, y3) = ((corners[:, i] - corners[:, 0]).T for i in (1, 2, 3))
    width = _side(np.maximum(x1 * x1 + y1 * y1, _square(x2 - x3, y2 - y3)))
    height = _side(np.maximum(x3 * x3 + y3 * y3, _square(x2 - x1, y2 - y1)))
    ax, ay, bx, by, sx, sy = x1 - x2, y1 - y2, x3 - x2, y3 - y2, x2 - x1 - x3, y2 - y1 - y3
    determinant = ax * by - bx * ay
    proper = np.abs(determinant) > np.float32(1e-3)
    determinant = np.where(proper, determinant, np.float32(1))
    g = np.where(proper, (sx * by - bx * sy) / determinant, np.float32(0))
    h = np.where(proper, (ax * sy - sx * ay) / determinant, np.float32(0))
    a, d, b, e = x1 + g * x1, y1 + g * y1, x3 + h * x3, y3 + h * y3
    w, t = width.astype(np.float32), height.astype(np.float32)
    return np.stack((height, width), -1), np.stack((a / w, b / t, d / w, e / t, g / w, h / t, x0, y0), -1)


def _square(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    return x * x + y * y


def _side(square: np.ndarray) -> np.ndarray:
    return np.floor(np.sqrt(square) + np.float32(0.5)).clip(1, MOST_SIDE).astype(np.int32)


def rectify(fetch: Fetch, frame: tuple[int, int], coefficients: np.ndarray, first: int, last: int, width: int
            ) -> np.ndarray:  # fmt: skip
    """Rows first to last of the rectified crop, (last - first, width, 3) uint8: bilinear, frame edge repeated.

    Positions are rounded to 1/256 of a pixel first: where all are whole the fetch is exact.
    """
    half, one = np.float32(0.5), np.float32(1)
    a, b, d, e, g, h, x0, y0 = coefficients.astype(np.float32)
    u = np.arange(width, dtype=np.float32)[None, :] + half
    v = np.arange(first, last, dtype=np.float32)[:, None] + half
    inverse = one / (g * u + h * v + one).clip(np.float32(1e-6))  # only what lies behind the horizon would be less
    x = _fixed(x0 + (a * u + b * v) * inverse, frame[1])
    y = _fixed(y0 + (d * u + e * v) * inverse, frame[0])
    right, below = x & STEPS - 1, y & STEPS - 1
    columns, rows = (
        [(near + i).clip(0, most - 1) for i in (0, 1)] for near, most in ((x >> 8, frame[1]), (y >> 8, frame[0]))
    )
    total = np.full((3, *x.shape), STEPS * STEPS // 2, np.int32)
    for row, down in zip(rows, (STEPS - below, below)):
        for column, across in zip(columns, (STEPS - right, right)):
            total += down * across * fetch(row, column)
    return (total >> 16).astype(np.uint8).transpose(1, 2, 0)


def _fixed(position: np.ndarray, limit: int) -> np.ndarray:
    """Left or upper neighbour of a position, counted from pixel centres, in units of 1/256."""
    half = np.float32(0.5)
    return np.floor((position - half).clip(np.float32(-1), np.float32(limit)) * np.float32(STEPS) + half).astype(
        np.int32
    )


def checked_quads(quads: Any, frame: tuple[int, int]) -> np.ndarray:
    """(N, 4, 2) float32. frame: height, width. Raises ShapeError naming the first bad quad, DtypeError."""
    points = checked_shape(quads)
    for wrong, reason in _faults(points, frame):
        if wrong.any():
            index = int(wrong.argmax())
            corners = " ".join(f"({x:g}, {y:g})" for x, y in points[index])
            raise ShapeError(f"quad {index} of {len(points)}: {reason}, got {corners}")
    return points.astype(np.float32)


def is_tall(quads: np.ndarray) -> np.ndarray:
    """bool (N,): at least TALL times as high as wide; the word in it may run up or down. quads: (N, 4, 2)."""
    sides = np.linalg.norm(np.roll(quads, -1, 1) - quads, axis=-1)
    return np.maximum(sides[:, 1], sides[:, 3]) >= TALL * np.maximum(sides[:, 0], sides[:, 2])


def checked_shape(quads: Any) -> np.ndarray:
    """(N, 4, 2) float64. Raises ShapeError, DtypeError."""
    try:
        array = np.asarray(quads)
        array = np.empty((0, 4, 2)) if array.shape == (0,) else array
    except ValueError:  # a ragged list
        raise ShapeError("quads: expected shape (N, 4, 2), got lists of unequal length") from None
    if array.dtype.kind not in "iuf":
        raise DtypeError(f"quads: expected numbers, got {array.dtype}")
    if array.ndim != 3 or array.shape[1:] != (4, 2):
        raise ShapeError(f"quads: expected shape (N, 4, 2), got {array.shape}")
    return array.astype(np.float64)


def _faults(points: np.ndarray, frame: tuple[int, int]) -> list[tuple[np.ndarray, str]]:
    """Which quads are wrong, and how, the gravest first."""
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
