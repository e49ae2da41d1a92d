"""One launch from frame to batch: rectified fetch, two small exact matrix products per tile, normalisation."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from clip4str.core.normalization import NORMALIZATION

from ..shared.launch import check_capability
from .config import CONVERSIONS, CropConfig, configuration
from .fetch import fetch, homography
from .taps import end_pixel, enlarge, first_pixel, join, rounded, share_unit, split_weight

NUMBERS = ["frame_height", "frame_width", "stride", "chroma_stride", "swap", "conversion"]


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


@triton.jit(do_not_specialize=NUMBERS)
def crop_resize_kernel(
    frame,
    chroma,
    quads,
    out,
    frame_height,
    frame_width,
    stride,
    chroma_stride,
    swap,
    conversion,
    NV12: tl.constexpr,
    HEIGHT: tl.constexpr,
    WIDTH: tl.constexpr,
    MEAN_R: tl.constexpr,
    MEAN_G: tl.constexpr,
    MEAN_B: tl.constexpr,
    STD_R: tl.constexpr,
    STD_G: tl.constexpr,
    STD_B: tl.constexpr,
    BLOCK_Y: tl.constexpr,
    BLOCK_X: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    """out[n] = (round(Down round(Crop_n Across)) / 255 - mean) / std

    Across and Down are banded matrices of Pillow's integer weights; a program computes the part that its tile needs,
    and fetches the rectified crop in chunks of ROWS x COLUMNS pixels. The whole tile shares a chunk's pixels and
    weights. The products are exact on tensor cores: integers below 2^24 in float32, then int32. (In a chunk of 32
    pixels `low` parts sum to at most 2^11 * 255 * 32 < 2^24, `high` parts to far less.)

    Shape: a program computes BLOCK_Y x BLOCK_X outputs of one crop. swap: 0 for red first, 2 for blue first.
    conversion: index into config.CONVERSIONS.

    Bound: 3 bytes read per crop pixel (neighbouring tiles share some in the cache), 3 H W outputs written. The limit is
    instructions, for weights and conversions: about nine of a warp per output pixel when enlarging.
    """
    across: tl.constexpr = (WIDTH + BLOCK_X - 1) // BLOCK_X
    tiles: tl.constexpr = across * ((HEIGHT + BLOCK_Y - 1) // BLOCK_Y)
    crop = tl.program_id(0) // tiles
    tile = tl.program_id(0) % tiles
    top = tile // across * BLOCK_Y
    left = tile % across * BLOCK_X
    ys = top + tl.arange(0, BLOCK_Y)
    xs = left + tl.arange(0, BLOCK_X)
    picture = (frame, chroma, frame_height, frame_width, stride, chroma_stride, swap, conversion)
    w, t, mapping = homography(quads + crop * 8)

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
            r, g, b = fetch(picture, mapping, us, vs, NV12)
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
    place = out + crop.to(tl.int64) * (3 * HEIGHT * WIDTH) + ys[:, None] * WIDTH + xs[None, :]
    _store(place, reds, inside, MEAN_R, STD_R)
    _store(place + HEIGHT * WIDTH, greens, inside, MEAN_G, STD_G)
    _store(place + 2 * HEIGHT * WIDTH, blues, inside, MEAN_B, STD_B)


def crop_resize_triton(
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
    config: CropConfig | None = None,
) -> Tensor:
    """Arguments as crop_resize_reference's; out contiguous."""
    if config is None:
        config = configuration(*size, check_capability(out.device)) if out.is_cuda else configuration(*size)
    grid = (len(out) * triton.cdiv(size[0], config.block_y) * triton.cdiv(size[1], config.block_x),)
    crop_resize_kernel[grid](
        frame,
        chroma,
        quads,
        out,
        frame.shape[0],
        frame.shape[1],
        frame.stride(0),
        chroma.stride(0) if chroma is not None else 0,
        2 if layout == "bgr" else 0,
        CONVERSIONS.index((matrix, full_range)),
        **constants(size, layout, normalization, config),
        **options(config),
        num_warps=config.warps,
        num_stages=1,
    )
    return out


def options(config: CropConfig) -> dict[str, object]:
    """Compiler options. No fused a * b + c: one rounding less in a position could change a pixel."""
    return {"enable_fp_fusion": False} | ({"maxnreg": config.registers} if config.registers else {})


def constants(size: tuple[int, int], layout: str, normalization: str, config: CropConfig) -> dict[str, object]:
    """The kernel's constexprs."""
    mean, std = NORMALIZATION[normalization]
    return {
        "NV12": layout == "nv12",
        "HEIGHT": size[0],
        "WIDTH": size[1],
        **{f"MEAN_{c}": m for c, m in zip("RGB", mean)},
        **{f"STD_{c}": s for c, s in zip("RGB", std)},
        "BLOCK_Y": config.block_y,
        "BLOCK_X": config.block_x,
        "ROWS": config.rows,
        "COLUMNS": config.columns,
    }
