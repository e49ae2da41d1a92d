"""From a frame and quadrilaterals to the network's input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clip4str.core.errors import DtypeError, LayoutError, ShapeError, UsageError
from clip4str.core.normalization import NORMALIZATION
from clip4str.core.planes import DEEP, LAYOUTS, MOST_FRAME, chosen_matrix
from clip4str.core.rectify import checked_quads

from ..shared.checks import FLOATS, check_contiguous, check_dtype, check_range, check_same_device, check_shape
from ..shared.launch import use_kernel
from .config import MOST_OUTPUT, CropConfig
from .reference import crop_resize_reference

Frame = Tensor | tuple[Tensor, Tensor]
Quads = Tensor | np.ndarray | Sequence[Any]


def crop_resize(
    frame: Frame,
    quads: Quads,
    size: tuple[int, int],
    *,
    layout: str = "rgb",
    normalization: str = "half",
    dtype: torch.dtype = torch.float32,
    matrix: str | None = None,
    full_range: bool = False,
    out: Tensor | None = None,
    config: CropConfig | None = None,
    implementation: str = "auto",
) -> Tensor:
    """N quadrilaterals of a frame, rectified, resized to `size` (height, width), normalised: (N, 3, H, W), one launch.

        w, h    = round(longer of top and bottom side), round(longer of left and right side), cut to 1..8192
        crop    = w x h pixels: pixel (u, v) is the frame at homography(u + 0.5, v + 0.5), where homography takes the
                  rectangle (0, 0)-(w, h) to the quad; position rounded to 1/256 pixel, bilinear, rounded to 0..255;
                  outside the frame its edge is repeated
        resized = Pillow's crop.resize((W, H), BICUBIC), across first: antialiased, a = -0.5, 22-bit weights, taps
                  beyond the crop left out, rounded to 0..255 after each of the two passes
        out     = (resized / 255 - mean) / std

    This is what a pipeline on the host does: warp to the size of the longer sides (no pixel of the quad is skipped),
    then resize with Pillow. For an axis-aligned box with integer corners (x0, y0), (x1, y1) the crop is exactly
    frame[y0:y1, x0:x1], and the float32 result equals runtime.images.prepare of it to the bit: no difference in
    millions of pixels of noise. Half precision: the same, rounded once. A crop's pixels depend neither on the other
    crops nor on the configuration.

    frame: uint8. "rgb" or "bgr": (Hf, Wf, 3), pixels dense, any row stride. "nv12": (Hf * 3 / 2, Wf), luma rows and
        under them rows of interleaved U, V; or the pair (luma (Hf, Wf), chroma (Hf / 2, Wf) or (Hf / 2, Wf / 2, 2));
        rows dense, any row strides; Hf, Wf even. Converted before interpolation; the four pixels of a square share
        their chroma sample, as in most converters. matrix: "bt601", "bt709", None: by core.planes.chosen_matrix;
        full_range: luma and chroma are 0..255, not 16..235 and 16..240.
    quads: (N, 4, 2), x and y in pixels of the word's top-left, top-right, bottom-right and bottom-left corner; the
        frame's first pixel covers 0 to 1. From the host (list, numpy, CPU tensor): each must be finite, convex,
        clockwise, 2 to 8192 pixels a side and not all outside the frame. On the GPU, with the frame: not checked
        (that would wait for the GPU); corners are clamped to +-65536 (NaN: 0), a mirrored quad gives a mirrored crop,
        any other bad quad some colours of the frame, in bounded time. Capture in a CUDA graph needs quads on the GPU.
    dtype: float32, float16, bfloat16. out: (N, 3, H, W) of that dtype, contiguous. H, W: 1 to 2048.

    Raises ShapeError (for quads with their index), DtypeError, LayoutError, DeviceError, UsageError.
    """
    check_layout(layout)
    check_normalization(normalization)
    height, width = check_size(size)
    luma, chroma = frame_planes(frame, layout)
    matrix = chosen_matrix(matrix, (luma.shape[0], luma.shape[1]))
    corners = _corners(quads, luma)
    if dtype not in FLOATS:
        raise DtypeError(f"dtype: expected float16, bfloat16 or float32, got {str(dtype).removeprefix('torch.')}")
    shape = (corners.shape[0], 3, height, width)
    if out is not None:
        check_shape("out", out, shape, {})
        check_dtype("out", out, dtype)
        check_contiguous("out", out)
    device = check_same_device({"frame": luma, "chroma": chroma, "out": out})
    kernel = use_kernel(device, implementation)
    if out is None:
        out = torch.empty(shape, dtype=dtype, device=device)
    if len(out) == 0:
        return out
    if not kernel:
        return crop_resize_reference(
            luma, chroma, corners, (height, width),
            layout=layout, normalization=normalization, matrix=matrix, full_range=full_range, out=out,
        )  # fmt: skip
    from .kernel import crop_resize_triton

    return crop_resize_triton(
        luma, chroma, corners, (height, width),
        layout=layout, normalization=normalization, matrix=matrix, full_range=full_range, out=out, config=config,
    )  # fmt: skip


def check_layout(layout: str) -> None:
    """Raises UsageError."""
    _check_name("layout", layout, LAYOUTS)


def check_normalization(normalization: str) -> None:
    """Raises UsageError."""
    _check_name("normalization", normalization, tuple(NORMALIZATION))


def _check_name(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise UsageError(f"{name} is {', '.join(map(repr, allowed[:-1]))} or {allowed[-1]!r}, not {value!r}")


def check_size(size: tuple[int, int]) -> tuple[int, int]:
    """An output's height and width. Raises ShapeError."""
    try:
        height, width = (int(n) for n in size)
    except (TypeError, ValueError):
        raise ShapeError(f"size: expected (height, width), got {size!r}") from None
    check_range("size: height", height, 1, MOST_OUTPUT)
    check_range("size: width", width, 1, MOST_OUTPUT)
    return height, width


def frame_planes(frame: Frame, layout: str) -> tuple[Tensor, Tensor | None]:
    """The frame's one plane, or luma and chroma, checked. Raises ShapeError, DtypeError, LayoutError, UsageError."""
    if layout != "nv12":
        if not isinstance(frame, Tensor):
            raise ShapeError(f"frame: {layout} is one tensor (height, width, 3), got a {type(frame).__name__}")
        check_shape("frame", frame, ("height", "width", 3), {})
        _check_plane("frame", frame, frame.shape[0], frame.shape[1], dense=2)
        return frame, None
    if isinstance(frame, Tensor):
        check_shape("frame", frame, ("rows", "width"), {})
        rows = frame.shape[0]
        if rows % 3:
            raise ShapeError(f"frame: nv12 has height * 3 / 2 rows, got {rows}")
        luma, chroma = frame[: rows // 3 * 2], frame[rows // 3 * 2 :]
    else:
        if len(frame) != 2:
            raise ShapeError(f"frame: nv12 is one tensor or the pair luma, chroma, got {len(frame)} parts")
        luma, chroma = (plane.flatten(1) if plane.dim() == 3 else plane for plane in frame)
        sizes: dict[str, int] = {}
        check_shape("luma", luma, ("height", "width"), sizes)
        check_shape("chroma", chroma, (luma.shape[0] // 2, "width"), sizes)
    if luma.shape[0] % 2 or luma.shape[1] % 2:
        raise ShapeError(f"frame: nv12 has even height and width, got {luma.shape[0]} and {luma.shape[1]}")
    _check_plane("frame", luma, luma.shape[0], luma.shape[1], dense=1)
    _check_plane("chroma", chroma, luma.shape[0], luma.shape[1], dense=1)
    return luma, chroma


def _check_plane(name: str, plane: Tensor, height: int, width: int, *, dense: int) -> None:
    if plane.dtype in (torch.uint16, torch.int16):
        raise DtypeError(f"{name}: {str(plane.dtype).removeprefix('torch.')}: {DEEP}")
    check_dtype(name, plane, torch.uint8)
    check_range("frame: height", height, 1, MOST_FRAME)
    check_range("frame: width", width, 1, MOST_FRAME)
    check_contiguous(name, plane, dense)
    if plane.stride(0) < 0 or plane.shape[0] * plane.stride(0) >= 2**31:
        raise LayoutError(
            f"{name}: expected less than 2 GiB from first to last row, got a row stride of {plane.stride(0)}"
        )


def _corners(quads: Quads, frame: Tensor) -> Tensor:
    """(N, 4, 2) float32 on the frame's device; quads from the host are checked."""
    if isinstance(quads, Tensor) and (quads.is_complex() or quads.dtype == torch.bool):
        raise DtypeError(f"quads: expected numbers, got {str(quads.dtype).removeprefix('torch.')}")
    if isinstance(quads, Tensor) and quads.device.type != "cpu":
        check_shape("quads", quads, ("N", 4, 2), {})
        check_same_device({"frame": frame, "quads": quads})
        return quads.to(torch.float32).contiguous()
    if isinstance(quads, Tensor):
        quads = quads.detach().to(torch.float64).numpy()
    checked = torch.from_numpy(checked_quads(quads, (frame.shape[0], frame.shape[1])))
    return checked.to(frame.device, non_blocking=True)
