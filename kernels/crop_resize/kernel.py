"""One launch from frame to batch: rectified fetch, two small exact matrix products per tile, normalisation."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ..shared.launch import capability_of
from .config import CONVERSIONS, CropConfig, configuration
from .fetch import homography
from .tile import make_tile, options, tile_constants

NUMBERS = ["frame_height", "frame_width", "stride", "chroma_stride", "swap", "conversion"]


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
    """out[n] = (round(Down round(Crop_n Across)) / 255 - mean) / std, see tile.make_tile

    Shape: a program computes BLOCK_Y x BLOCK_X outputs of one crop. swap: 0 for red first, 2 for blue first.
    conversion: index into config.CONVERSIONS.

    Bound: 3 bytes read per crop pixel (neighbouring tiles share some in the cache), 3 H W outputs written. The limit is
    instructions, for weights and conversions: about nine of a warp per output pixel when enlarging.
    """
    across: tl.constexpr = (WIDTH + BLOCK_X - 1) // BLOCK_X
    tiles: tl.constexpr = across * ((HEIGHT + BLOCK_Y - 1) // BLOCK_Y)
    crop = tl.program_id(0) // tiles
    tile = tl.program_id(0) % tiles
    w, t, mapping = homography(quads + crop * 8)
    picture = (frame, chroma, frame_height, frame_width, stride, chroma_stride, swap, conversion, mapping)
    make_tile(
        picture, w, t, tile // across * BLOCK_Y, tile % across * BLOCK_X,
        out + crop.to(tl.int64) * (3 * HEIGHT * WIDTH), False, NV12, HEIGHT, WIDTH,
        MEAN_R, MEAN_G, MEAN_B, STD_R, STD_G, STD_B, BLOCK_Y, BLOCK_X, ROWS, COLUMNS,
    )  # fmt: skip


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
        config = configuration(*size, capability_of(out.device))
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


def constants(size: tuple[int, int], layout: str, normalization: str, config: CropConfig) -> dict[str, object]:
    """The kernel's constexprs."""
    return {"NV12": layout == "nv12", **tile_constants(size, normalization, config)}
