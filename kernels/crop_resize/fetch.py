"""Where a rectified crop's pixels lie in the frame, and what colour they have: Triton's side of core.rectify."""

from __future__ import annotations

import triton
import triton.language as tl

from clip4str.core.rectify import MOST_SIDE, yuv_matrix

from .config import CONVERSIONS

SIDE = tl.constexpr(MOST_SIDE)
FAR = tl.constexpr(65536.0)
YUV = tl.constexpr(tuple(yuv_matrix(*c) for c in CONVERSIONS))


@triton.jit
def reciprocal(x):
    """1 / x, rounded once. tl.div_rn is exact too, but branches; this is five instructions."""
    rough = 1.0 / x
    return tl.fma(tl.fma(-x, rough, 1.0), rough, rough)


@triton.jit
def _corner(quad, index: tl.constexpr):
    value = tl.load(quad + index)
    return tl.minimum(tl.maximum(tl.where(value == value, value, 0.0), -FAR), FAR)


@triton.jit
def _side(x, y, x_opposite, y_opposite):
    square = tl.maximum(x * x + y * y, x_opposite * x_opposite + y_opposite * y_opposite)
    return tl.minimum(tl.maximum(tl.floor(tl.sqrt_rn(square) + 0.5), 1.0), SIDE * 1.0)


@triton.jit
def homography(quad):
    """core.rectify.homographies for one quad: width, height, (a, b, d, e, g, h, x0, y0)."""
    x0 = _corner(quad, 0)
    y0 = _corner(quad, 1)
    x1 = _corner(quad, 2) - x0
    y1 = _corner(quad, 3) - y0
    x2 = _corner(quad, 4) - x0
    y2 = _corner(quad, 5) - y0
    x3 = _corner(quad, 6) - x0
    y3 = _corner(quad, 7) - y0
    w = _side(x1, y1, x2 - x3, y2 - y3)
    t = _side(x3, y3, x2 - x1, y2 - y1)
    ax = x1 - x2
    ay = y1 - y2
    bx = x3 - x2
    by = y3 - y2
    sx = x2 - x1 - x3
    sy = y2 - y1 - y3
    determinant = ax * by - bx * ay
    proper = tl.abs(determinant) > 1e-3
    determinant = tl.where(proper, determinant, 1.0)
    g = tl.where(proper, tl.div_rn(sx * by - bx * sy, determinant), 0.0)
    h = tl.where(proper, tl.div_rn(ax * sy - sx * ay, determinant), 0.0)
    a = tl.div_rn(x1 + g * x1, w)
    d = tl.div_rn(y1 + g * y1, w)
    b = tl.div_rn(x3 + h * x3, t)
    e = tl.div_rn(y3 + h * y3, t)
    return w.to(tl.int32), t.to(tl.int32), (a, b, d, e, tl.div_rn(g, w), tl.div_rn(h, t), x0, y0)


@triton.jit
def _fixed(position, limit):
    inside = tl.minimum(tl.maximum(position - 0.5, -1.0), limit.to(tl.float32))
    return tl.floor(inside * 256.0 + 0.5).to(tl.int32)


@triton.jit
def yuv(conversion):
    """The six numbers of core.rectify.yuv_matrix."""
    return (
        _chosen(conversion, 0),
        _chosen(conversion, 1),
        _chosen(conversion, 2),
        _chosen(conversion, 3),
        _chosen(conversion, 4),
        _chosen(conversion, 5),
    )


@triton.jit
def _chosen(conversion, INDEX: tl.constexpr):
    limited = tl.where(conversion == 0, YUV[0][INDEX], YUV[1][INDEX])
    full = tl.where(conversion == 2, YUV[2][INDEX], YUV[3][INDEX])
    return tl.where(conversion < 2, limited, full)


@triton.jit
def _level(total):
    """Colour in units of 2^-20 -> 0..255."""
    return tl.minimum(tl.maximum((total + 524288) >> 20, 0), 255)


@triton.jit
def pixel(frame, chroma, y, x, stride, chroma_stride, swap, black, luma, rv, gu, gv, bu, NV12: tl.constexpr):
    """Red, green, blue of frame pixels, int32."""
    if NV12:
        pair = chroma + (y >> 1) * chroma_stride + (x & -2)
        u = tl.load(pair).to(tl.int32) - 128
        v = tl.load(pair + 1).to(tl.int32) - 128
        grey = luma * (tl.load(frame + y * stride + x).to(tl.int32) - black)
        return _level(grey + rv * v), _level(grey + gu * u + gv * v), _level(grey + bu * u)
    else:
        place = frame + y * stride + x * 3
        red = tl.load(place + swap).to(tl.int32)
        green = tl.load(place + 1).to(tl.int32)
        blue = tl.load(place + 2 - swap).to(tl.int32)
        return red, green, blue


@triton.jit
def fetch_packed(picture, us, vs):
    """Pixels (us, vs) of a picture of its own, dense, red first: as fetch gives them. Outside, its edge is repeated."""
    first, w, t = picture
    place = first + (tl.minimum(vs, t - 1)[:, None] * w + tl.minimum(us, w - 1)[None, :]) * 3
    return tl.load(place).to(tl.float16), tl.load(place + 1).to(tl.float16), tl.load(place + 2).to(tl.float16)


@triton.jit
def fetch(picture, us, vs, NV12: tl.constexpr):
    """Pixels (us, vs) of the rectified crop: red, green, blue, each [rows, columns], integers in float16."""
    frame, chroma, frame_height, frame_width, stride, chroma_stride, swap, conversion, mapping = picture
    a, b, d, e, g, h, x0, y0 = mapping
    u = us[None, :].to(tl.float32) + 0.5
    v = vs[:, None].to(tl.float32) + 0.5
    below = tl.maximum(g * u + h * v + 1.0, 1e-6)
    inverse = reciprocal(below)
    x = _fixed(x0 + (a * u + b * v) * inverse, frame_width)
    y = _fixed(y0 + (d * u + e * v) * inverse, frame_height)
    black, luma, rv, gu, gv, bu = yuv(conversion)
    red = x * 0 + 32768
    green = red
    blue = red
    for j in tl.static_range(2):
        row = tl.minimum(tl.maximum((y >> 8) + j, 0), frame_height - 1)
        y_weight = (y & 255) if j == 1 else 256 - (y & 255)
        for i in tl.static_range(2):
            column = tl.minimum(tl.maximum((x >> 8) + i, 0), frame_width - 1)
            weight = y_weight * ((x & 255) if i == 1 else 256 - (x & 255))
            r, q, s = pixel(frame, chroma, row, column, stride, chroma_stride, swap, black, luma, rv, gu, gv, bu, NV12)
            red += weight * r
            green += weight * q
            blue += weight * s
    return (red >> 16).to(tl.float16), (green >> 16).to(tl.float16), (blue >> 16).to(tl.float16)
