"""From pictures, each of its own size, to the network's input."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from clip4str.core.errors import DtypeError, ShapeError
from clip4str.core.rectify import MOST_SIDE

from ..crop_resize.api import check_normalization, check_size
from ..crop_resize.config import CropConfig
from ..shared.checks import FLOATS, check_contiguous, check_dtype, check_same_device, check_shape
from ..shared.launch import use_kernel
from .reference import resize_reference

MOST_BYTES = 2**31 - 1  # of all pictures together: places are counted in 32 bits


def resize(
    pixels: Tensor,
    pictures: Tensor | np.ndarray,
    size: tuple[int, int],
    *,
    normalization: str = "half",
    dtype: torch.dtype = torch.float32,
    out: Tensor | None = None,
    config: CropConfig | None = None,
    implementation: str = "auto",
) -> Tensor:
    """N pictures, resized to `size` (height, width) and normalised: (N, 3, H, W), one launch.

        resized = Pillow's picture.resize((W, H), BICUBIC), across first: antialiased, a = -0.5, 22-bit weights, taps
                  beyond the picture left out, rounded to 0..255 after each of the two passes
        out     = (resized / 255 - mean) / std

    Float32 equals runtime.images.prepare to the bit; half precision is the same, rounded once. What comes out for a
    picture depends neither on the others nor on the configuration.

    pixels: uint8 (bytes,), contiguous, below 2 GiB: the pictures, each (h, w, 3) RGB and dense, anywhere in it.
    pictures: (N, 3) int32: where each begins in `pixels`, its height, its width; sides 1 to 8192. On the host each is
        checked to lie in `pixels`. On the GPU, with `pixels`: not checked (that would wait for the GPU); sides are cut
        to those bounds. Capture in a CUDA graph needs them there.
    dtype: float32, float16, bfloat16. out: (N, 3, H, W) of that dtype, contiguous. H, W: 1 to 2048.

    Raises ShapeError, DtypeError, LayoutError, DeviceError, UsageError.
    """
    check_normalization(normalization)
    height, width = check_size(size)
    check_shape("pixels", pixels, ("bytes",), {})
    check_dtype("pixels", pixels, torch.uint8)
    check_contiguous("pixels", pixels)
    if len(pixels) > MOST_BYTES:
        raise ShapeError(f"pixels: expected at most {MOST_BYTES:,} bytes, got {len(pixels):,}")
    table = torch.from_numpy(pictures) if isinstance(pictures, np.ndarray) else pictures
    check_shape("pictures", table, ("N", 3), {})
    check_dtype("pictures", table, torch.int32)
    check_contiguous("pictures", table)
    if table.device.type == "cpu":
        _check_places(table.numpy(), len(pixels))
        table = table.to(pixels.device)
    if dtype not in FLOATS:
        raise DtypeError(f"dtype: expected float16, bfloat16 or float32, got {str(dtype).removeprefix('torch.')}")
    shape = (len(table), 3, height, width)
    if out is not None:
        check_shape("out", out, shape, {})
        check_dtype("out", out, dtype)
        check_contiguous("out", out)
    device = check_same_device({"pixels": pixels, "pictures": table, "out": out})
    kernel = use_kernel(device, implementation)
    if out is None:
        out = torch.empty(shape, dtype=dtype, device=device)
    if len(out) == 0:
        return out
    if not kernel:
        return resize_reference(pixels, table, (height, width), normalization=normalization, out=out)
    from .kernel import resize_triton

    return resize_triton(pixels, table, (height, width), normalization=normalization, out=out, config=config)


def _check_places(table: np.ndarray, bytes_: int) -> None:
    first, height, width = table.astype(np.int64).T
    sides = (np.minimum(height, width) < 1) | (np.maximum(height, width) > MOST_SIDE)
    outside = (first < 0) | (first + 3 * height * width > bytes_)
    for wrong, reason in ((sides, f"sides are 1 to {MOST_SIDE} pixels"), (outside, f"lies in the {bytes_:,} bytes")):
        if wrong.any():
            index = int(wrong.argmax())
            at, h, w = table[index].tolist()
            raise ShapeError(f"picture {index} of {len(table)}: {reason}, got {w}x{h} from byte {at} on")
