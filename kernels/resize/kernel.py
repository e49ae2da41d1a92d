"""One launch for a whole batch of pictures: crop_resize's tiles over pictures that lie packed."""

from __future__ import annotations

import triton
import triton.language as tl
from torch import Tensor

from ..crop_resize.config import CropConfig, configuration
from ..crop_resize.fetch import SIDE
from ..crop_resize.tile import make_tile, options, tile_constants
from ..shared.launch import capability_of


@triton.jit
def resize_kernel(
    pixels, pictures, out, HEIGHT: tl.constexpr, WIDTH: tl.constexpr,
    MEAN_R: tl.constexpr, MEAN_G: tl.constexpr, MEAN_B: tl.constexpr,
    STD_R: tl.constexpr, STD_G: tl.constexpr, STD_B: tl.constexpr,
    BLOCK_Y: tl.constexpr, BLOCK_X: tl.constexpr, ROWS: tl.constexpr, COLUMNS: tl.constexpr,
):  # fmt: skip
    """out[n] = (round(Down round(Picture_n Across)) / 255 - mean) / std, see crop_resize.tile.make_tile

    Shape: a program computes BLOCK_Y x BLOCK_X outputs of one picture.

    Bound: 3 bytes read per pixel of the pictures, 3 H W outputs written. The limit is instructions, for weights.
    """
    across: tl.constexpr = (WIDTH + BLOCK_X - 1) // BLOCK_X
    tiles: tl.constexpr = across * ((HEIGHT + BLOCK_Y - 1) // BLOCK_Y)
    n = tl.program_id(0) // tiles
    tile = tl.program_id(0) % tiles
    first = tl.load(pictures + n * 3)
    t = tl.minimum(tl.maximum(tl.load(pictures + n * 3 + 1), 1), SIDE)
    w = tl.minimum(tl.maximum(tl.load(pictures + n * 3 + 2), 1), SIDE)
    make_tile(
        (pixels + first, w, t), w, t, tile // across * BLOCK_Y, tile % across * BLOCK_X,
        out + n.to(tl.int64) * (3 * HEIGHT * WIDTH), True, False, HEIGHT, WIDTH,
        MEAN_R, MEAN_G, MEAN_B, STD_R, STD_G, STD_B, BLOCK_Y, BLOCK_X, ROWS, COLUMNS,
    )  # fmt: skip


def resize_triton(
    pixels: Tensor, pictures: Tensor, size: tuple[int, int], *, normalization: str = "half", out: Tensor,
    config: CropConfig | None = None,
) -> Tensor:  # fmt: skip
    """Arguments as resize_reference's; all contiguous."""
    if config is None:
        config = configuration(*size, capability_of(out.device))
    grid = (len(out) * triton.cdiv(size[0], config.block_y) * triton.cdiv(size[1], config.block_x),)
    resize_kernel[grid](
        pixels, pictures, out, **tile_constants(size, normalization, config), **options(config),
        num_warps=config.warps, num_stages=1,
    )  # fmt: skip
    return out
