"""One launch: each program averages the areas below one run of a thumbnail's row."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from clip4str.core.thumbnail import LUMA

from ..crop_resize.config import CONVERSIONS
from ..crop_resize.fetch import pixel, yuv
from .config import ThumbnailConfig, configuration

RED, GREEN, BLUE = (tl.constexpr(weight) for weight in LUMA)
NUMBERS = ["frame_height", "frame_width", "stride", "chroma_stride", "swap", "conversion", "height", "width"]


@triton.jit
def _mean(total, area):
    """Rounded half up, int64."""
    return ((2 * total + area) // (2 * area)).to(tl.uint8)


@triton.jit(do_not_specialize=NUMBERS)
def thumbnail_kernel(
    frame, chroma, out, frame_height, frame_width, stride, chroma_stride, swap, conversion, height, width,
    NV12: tl.constexpr, COLOUR: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """out[c, i, j] = round(sum over y, x of rows(i, y) columns(j, x) value[c, y, x] / (H W))

    rows(i, y): what pixel y, height units long, has in common with output i, H units long, from i H on; columns alike.
    Sums along a row stay below 255 x 32768, in 32 bits; those over rows are in 64.

    Shape: program (i, k) makes outputs k BLOCK to (k + 1) BLOCK of row i. Bound: every byte of the frame once.
    """
    i = tl.program_id(0)
    j = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    at = tl.minimum(j, width - 1)
    left = at * frame_width
    first = left // width
    taps = (frame_width + width - 1) // width + 1
    top = i * frame_height
    black, luma, rv, gu, gv, bu = yuv(conversion)
    red = tl.zeros([BLOCK], tl.int64)
    green = tl.zeros([BLOCK], tl.int64)
    blue = tl.zeros([BLOCK], tl.int64)
    for y in range(top // height, (top + frame_height + height - 1) // height):
        r = tl.zeros([BLOCK], tl.int32)
        g = tl.zeros([BLOCK], tl.int32)
        b = tl.zeros([BLOCK], tl.int32)
        for k in range(taps):
            x = first + k
            shared = tl.minimum((x + 1) * width, left + frame_width) - tl.maximum(x * width, left)
            shared = tl.maximum(shared, 0)
            x = tl.minimum(x, frame_width - 1)
            if NV12 and not COLOUR:
                r += shared * tl.load(frame + y * stride + x).to(tl.int32)
            else:
                p, q, s = pixel(frame, chroma, y, x, stride, chroma_stride, swap, black, luma, rv, gu, gv, bu, NV12)
                if COLOUR:
                    r += shared * p
                    g += shared * q
                    b += shared * s
                else:
                    r += shared * ((RED * p + GREEN * q + BLUE * s + 16384) >> 15)
        weight = (tl.minimum((y + 1) * height, top + frame_height) - tl.maximum(y * height, top)).to(tl.int64)
        red += weight * r
        green += weight * g
        blue += weight * b
    area = frame_height.to(tl.int64) * frame_width
    inside = j < width
    place = out + i * width + j
    tl.store(place, _mean(red, area), mask=inside)
    if COLOUR:
        tl.store(place + height * width, _mean(green, area), mask=inside)
        tl.store(place + 2 * height * width, _mean(blue, area), mask=inside)


def thumbnail_triton(
    luma: Tensor, chroma: Tensor | None, size: tuple[int, int], *, layout: str, colour: bool, matrix: str,
    full_range: bool, out: Tensor, config: ThumbnailConfig | None = None,
) -> Tensor:  # fmt: skip
    """Arguments as thumbnail_reference's; out contiguous."""
    config = config or configuration()
    given = chroma if colour else None
    thumbnail_kernel[(size[0], triton.cdiv(size[1], config.block))](
        luma, given, out, luma.shape[0], luma.shape[1], luma.stride(0), 0 if given is None else given.stride(0),
        2 if layout == "bgr" else 0, CONVERSIONS.index((matrix, full_range)), size[0], size[1],
        **constants(layout, colour, config), num_warps=config.warps, num_stages=1,
    )  # fmt: skip
    return out


def constants(layout: str, colour: bool, config: ThumbnailConfig) -> dict[str, object]:
    """The kernel's constexprs."""
    return {"NV12": layout == "nv12", "COLOUR": colour, "BLOCK": config.block}
