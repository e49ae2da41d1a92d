"""A tile of a picture, resized as Pillow does: two small exact matrix products, then normalised."""

from __future__ import annotations

import triton
import triton.language as tl

from clip4str.core.normalization import NORMALIZATION

from .config import CropConfig
from .fetch import fetch, fetch_packed
from .taps import end_pixel, enlarge, first_pixel, join, rounded, share_unit, split_weight


@triton.jit
def _quotient(x, DIVISOR: tl.constexpr):
    """x / DIVISOR, rounded once."""
    rough = x * (1.0 / DIVISOR)
    return tl.fma(tl.fma(rough, -DIVISOR, x), 1.0 / DIVISOR, rough)


@triton.jit
def _store(out, total, inside, MEAN: tl.constexpr, STD: tl.constexpr):
    """The arithmetic of runtime.images.prepare, to the bit."""
    value = _quotient(_quotient(rounded(total).to(tl.float32), 255.0) - MEAN, STD)
    tl.store(out, value.to(out.dtype.element_ty), mask=inside)


@triton.jit
def make_tile(
    picture, w, t, top, left, out, PACKED: tl.constexpr, NV12: tl.constexpr, HEIGHT: tl.constexpr, WIDTH: tl.constexpr,
    MEAN_R: tl.constexpr, MEAN_G: tl.constexpr, MEAN_B: tl.constexpr,
    STD_R: tl.constexpr, STD_G: tl.constexpr, STD_B: tl.constexpr,
    BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """out[y, x] = (round(Down round(Picture Across)) / 255 - mean) / std, BLOCK_Y x BLOCK_X places from (top, left).

    Across and Down are banded matrices of Pillow's integer weights; the pixels and weights that the tile needs are had
    in chunks of ROWS x COLUMNS pixels of the picture, w wide and t high. The products are exact on tensor cores:
    integers below 2^24 in float32, then int32. (In a chunk of 32 pixels `low` parts sum to at most 2^11 * 255 * 32 <
    2^24, `high` parts to far less.)

    picture: what fetch_packed, else fetch, takes. out: (3, HEIGHT, WIDTH).
    """
    ys = top + tl.arange(0, BLOCK_Y)
    xs = left + tl.arange(0, BLOCK_X)
    y_place = tl.minimum(ys, HEIGHT - 1)
    x_place = tl.minimum(xs, WIDTH - 1)
    y_unit, y_rest = share_unit(y_place, t, HEIGHT)
    x_unit, x_rest = share_unit(x_place, w, WIDTH)
    y_place, y_unit, y_rest = y_place[:, None], y_unit[:, None], y_rest[:, None]
    x_place, x_unit, x_rest = x_place[None, :], x_unit[None, :], x_rest[None, :]
    length_y, count_y = enlarge(t, HEIGHT)
    length_x, count_x = enlarge(w, WIDTH)
    y_first = first_pixel(top, t, HEIGHT)
    x_first = first_pixel(left, w, WIDTH)
    y_end = end_pixel(tl.minimum(top + BLOCK_Y, HEIGHT) - 1, t, HEIGHT)
    x_end = end_pixel(tl.minimum(left + BLOCK_X, WIDTH) - 1, w, WIDTH)
    reds = tl.zeros([BLOCK_Y, BLOCK_X], tl.int32)
    greens = tl.zeros([BLOCK_Y, BLOCK_X], tl.int32)
    blues = tl.zeros([BLOCK_Y, BLOCK_X], tl.int32)
    for first_row in range(y_first, y_end, ROWS):
        vs = first_row + tl.arange(0, ROWS)
        red = tl.zeros([ROWS, BLOCK_X], tl.int32)
        green = tl.zeros([ROWS, BLOCK_X], tl.int32)
        blue = tl.zeros([ROWS, BLOCK_X], tl.int32)
        for first_column in range(x_first, x_end, COLUMNS):
            us = first_column + tl.arange(0, COLUMNS)
            if PACKED:
                r, g, b = fetch_packed(picture, us, vs)
            else:
                r, g, b = fetch(picture, us, vs, NV12)
            high, low = split_weight(us[:, None], x_place, x_unit, x_rest, length_x, count_x, w)  # [COLUMNS, BLOCK_X]
            red += join(tl.dot(r, high), tl.dot(r, low))
            green += join(tl.dot(g, high), tl.dot(g, low))
            blue += join(tl.dot(b, high), tl.dot(b, low))
        high, low = split_weight(vs[None, :], y_place, y_unit, y_rest, length_y, count_y, t)  # [BLOCK_Y, ROWS]
        r = rounded(red).to(tl.float16)
        g = rounded(green).to(tl.float16)
        b = rounded(blue).to(tl.float16)
        reds += join(tl.dot(high, r), tl.dot(low, r))
        greens += join(tl.dot(high, g), tl.dot(low, g))
        blues += join(tl.dot(high, b), tl.dot(low, b))

    inside = (ys < HEIGHT)[:, None] & (xs < WIDTH)[None, :]
    place = out + ys[:, None] * WIDTH + xs[None, :]
    _store(place, reds, inside, MEAN_R, STD_R)
    _store(place + HEIGHT * WIDTH, greens, inside, MEAN_G, STD_G)
    _store(place + 2 * HEIGHT * WIDTH, blues, inside, MEAN_B, STD_B)


def options(config: CropConfig) -> dict[str, object]:
    """Compiler options. No fused a * b + c: one rounding less in a position could change a pixel."""
    return {"enable_fp_fusion": False} | ({"maxnreg": config.registers} if config.registers else {})


def tile_constants(size: tuple[int, int], normalization: str, config: CropConfig) -> dict[str, object]:
    """make_tile's constexprs, but for where pixels come from."""
    mean, std = NORMALIZATION[normalization]
    return {
        "HEIGHT": size[0],
        "WIDTH": size[1],
        **{f"MEAN_{c}": m for c, m in zip("RGB", mean)},
        **{f"STD_{c}": s for c, s in zip("RGB", std)},
        "BLOCK_Y": config.block_y,
        "BLOCK_X": config.block_x,
        "ROWS": config.rows,
        "COLUMNS": config.columns,
    }
