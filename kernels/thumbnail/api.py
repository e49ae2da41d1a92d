"""From a frame to its thumbnail."""

from __future__ import annotations

import torch
from torch import Tensor

from clip4str.core.planes import chosen_matrix
from clip4str.core.thumbnail import MOST_SIDE

from ..crop_resize.api import Frame, check_layout, frame_planes
from ..shared.checks import check_range, check_same_device
from ..shared.launch import use_kernel
from .config import ThumbnailConfig
from .reference import thumbnail_reference


def thumbnail(
    frame: Frame, size: tuple[int, int], *, layout: str = "rgb", colour: bool = False, matrix: str | None = None,
    full_range: bool = False, config: ThumbnailConfig | None = None, implementation: str = "auto",
) -> Tensor:  # fmt: skip
    """A frame shrunk to `size` (height, width), by the mean of the area below each pixel: uint8 (1, h, w) grey, or with
    colour (3, h, w) RGB, on the frame's device. What is computed: core.thumbnail, equal in every bit.

    frame, layout, matrix, full_range: as crop_resize takes them. size: no side longer than the frame's, at most 4096.

    Raises ShapeError, DtypeError, LayoutError, DeviceError, UsageError.
    """
    check_layout(layout)
    luma, chroma = frame_planes(frame, layout)
    for name, side, most in zip(("height", "width"), size, luma.shape):
        check_range(f"size: {name}", side, 1, min(MOST_SIDE, most))
    chosen = chosen_matrix(matrix, (luma.shape[0], luma.shape[1]))
    device = check_same_device({"frame": luma, "chroma": chroma})
    out = torch.empty((3 if colour else 1, *size), dtype=torch.uint8, device=device)
    if not use_kernel(device, implementation):
        return thumbnail_reference(
            luma, chroma, size, layout=layout, colour=colour, matrix=chosen, full_range=full_range, out=out
        )
    from .kernel import thumbnail_triton

    return thumbnail_triton(
        luma, chroma, size, layout=layout, colour=colour, matrix=chosen, full_range=full_range, out=out, config=config
    )
