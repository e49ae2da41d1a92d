"""A request to the Python model: what it asks for, checked before anything is read."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from clip4str.core.errors import DtypeError, ImageError, LayoutError, NonFiniteError, ShapeError, UsageError
from clip4str.runtime import FrameQuads, load_image

MOST_QUADS = 1024  # in a frame
MOST_QUAD_PIXELS = 64_000_000  # that a frame's quads cover together
LAYOUTS = ("rgb", "bgr", "nv12")
CALLERS = (ImageError, ShapeError, DtypeError, LayoutError, UsageError, NonFiniteError)  # errors that are their own
_PARAMETERS = {"layout": str, "matrix": str, "full_range": bool, "turn": bool}


@dataclass(frozen=True)
class Asked:
    """pictures: encoded bytes, or uint8 arrays (H, W, C). quads: (N, Q, 4, 2) float32, or None where each picture is
    one word. layout: of pictures that are arrays. how: matrix and full_range of NV12."""

    pictures: list[Any]
    quads: np.ndarray | None = None
    layout: str = "rgb"
    turn: bool = True
    how: dict[str, Any] = field(default_factory=dict)

    def frame(self, number: int) -> FrameQuads:
        """One picture with its quads; an encoded one is decoded now. Raises ImageError."""
        assert self.quads is not None
        picture, quads, how = self.pictures[number], self.quads[number], {"layout": self.layout, **self.how}
        if isinstance(picture, bytes):
            return FrameQuads(np.asarray(load_image(picture)), quads)
        return FrameQuads(picture[..., 0] if self.layout == "nv12" else picture, quads, **how)


def asked(image: np.ndarray | None, pixels: np.ndarray | None, quads: np.ndarray | None, parameters: str) -> Asked:
    """image: (N, 1) objects, bytes each. pixels: (N, H, W, C) uint8. quads: (N, Q, 4, 2). parameters: JSON of those
    that came with the request. Raises Clip4StrError."""
    options = _options(parameters)
    if (image is None) == (pixels is None):
        raise UsageError(
            "a request has image, that is encoded pictures, or pixels, and not both; quads are words in them"
        )
    layout = options.pop("layout", "rgb")
    if layout not in LAYOUTS:
        raise UsageError(f"layout is one of {', '.join(LAYOUTS)}, not {layout!r}")
    pictures = _encoded(image, layout) if image is not None else _arrays(pixels, layout, quads is not None)
    if quads is None:
        if options:
            raise UsageError(f"{', '.join(sorted(options))}: for frames, that is with quads")
        return Asked(pictures)
    _check_quads(quads, len(pictures))
    turn = options.pop("turn", True)
    if options and layout != "nv12":
        raise UsageError(f"{', '.join(sorted(options))}: for layout nv12")
    return Asked(pictures, quads, layout, turn, options)


def _options(parameters: str) -> dict[str, Any]:
    values = json.loads(parameters) if parameters else {}
    options = {}
    for name, value in values.items() if isinstance(values, Mapping) else ():
        if name not in _PARAMETERS:
            raise UsageError(f"there is no parameter {name[:40]!r}; there are {', '.join(_PARAMETERS)}")
        if not isinstance(value, _PARAMETERS[name]):
            raise UsageError(f"{name} is a {_PARAMETERS[name].__name__}, not {str(value)[:40]!r}")
        options[name] = value
    return options


def _encoded(image: np.ndarray, layout: str) -> list[Any]:
    if layout != "rgb":
        raise UsageError(f"layout {layout} is for pixels; an encoded picture says itself how it is coloured")
    if image.ndim != 2 or image.shape[1] != 1:
        raise ShapeError(f"image: expected shape (N, 1), got {image.shape}")
    return [bytes(value) for value in image[:, 0]]


def _arrays(pixels: Any, layout: str, frames: bool) -> list[Any]:
    if layout == "nv12":
        if not frames:
            raise UsageError("layout nv12 is for frames, that is with quads")
        if pixels.ndim != 4 or pixels.shape[3] != 1:
            raise ShapeError(f"pixels: expected NV12 of shape (N, H * 3 / 2, W, 1), got {pixels.shape}")
    elif frames and (pixels.ndim != 4 or pixels.shape[3] != 3):
        raise ShapeError(f"pixels: expected frames of shape (N, H, W, 3), got {pixels.shape}")
    if layout == "bgr" and not frames:
        if pixels.ndim != 4 or pixels.shape[3] != 3:
            raise ShapeError(f"pixels: expected BGR of shape (N, H, W, 3), got {pixels.shape}")
        pixels = pixels[..., ::-1]
    return list(pixels)


def _check_quads(quads: np.ndarray, pictures: int) -> None:
    if quads.ndim != 4 or quads.shape[2:] != (4, 2) or len(quads) != pictures:
        raise ShapeError(f"quads: expected shape ({pictures}, Q, 4, 2), Q words in each picture, got {quads.shape}")
    if quads.shape[1] > MOST_QUADS:
        raise ShapeError(f"quads: {quads.shape[1]} in a picture; at most {MOST_QUADS}")
    sides = np.linalg.norm(np.roll(quads, -1, 2) - quads, axis=-1).astype(np.float64)
    covered = (np.maximum(sides[..., 0], sides[..., 2]) * np.maximum(sides[..., 1], sides[..., 3])).sum(-1)
    if np.nanmax(covered, initial=0) > MOST_QUAD_PIXELS:
        raise ShapeError(f"quads: those of a picture cover {covered.max():,.0f} pixels; at most {MOST_QUAD_PIXELS:,}")


def said(error: Exception, number: int | None = None) -> str:
    """For who asked: the kind of error and why, one line, and nothing of the machine. number: of the picture."""
    if not isinstance(error, CALLERS):
        return "InternalError: the server's log says what went wrong"
    message = str(error).removeprefix("<bytes>: ").removeprefix("<array>: ")
    where = "" if number is None else f"picture {number}: "
    return f"{type(error).__name__}: {where}{message}"
