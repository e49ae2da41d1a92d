"""The input: normalised pixels, or pictures of bytes that are normalised inside, and resized where that is wanted."""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from clip4str.core.normalization import NORMALIZATION
from clip4str.export.graph import Graph

from .bodies import FLOAT, reduce

UINT8 = TensorProto.UINT8
INPUT = "pixels"


def pixels_input(g: Graph, size: tuple[int, int], normalization: str, uint8: bool, resize: bool) -> str:
    """Declares the input; returns pixels (N, 3, H, W) float32 as runtime.images prepares them."""
    height, width = size
    if not uint8:
        return g.input(INPUT, FLOAT, ("N", 3, height, width))
    given = ("height", "width") if resize else (height, width)
    with g.scope("prepare"):
        x = g.op("Cast", g.input(INPUT, UINT8, ("N", *given, 3)), to=FLOAT)
        x = g.op("Transpose", x, perm=[0, 3, 1, 2])
        if resize:
            x = _resized(g, x, height, width)
        x = g.op("Div", x, g.constant("f32_255", np.array(255, np.float32)))
        mean, std = (np.array(values, np.float32).reshape(1, 3, 1, 1) for values in NORMALIZATION[normalization])
        return g.op("Div", g.op("Sub", x, g.constant("mean", mean)), g.constant("std", std))


def _resized(g: Graph, x: str, height: int, width: int) -> str:
    """Pillow's bicubic resize with antialiasing: across, rounded to bytes, and then down, as two products. Operators
    called Resize do this on some runtimes only, and a little differently on each."""
    across = g.op("Transpose", _weights(g, g.op("Shape", x, start=3, end=4), width), perm=[1, 0])
    x = _bytes(g, g.op("MatMul", x, across))
    return _bytes(g, g.op("MatMul", _weights(g, g.op("Shape", x, start=2, end=3), height), x))


def _weights(g: Graph, length: str, count: int) -> str:
    """length (1,) int64 -> the shares that each of `count` pixels takes of that many: (count, length) float32."""

    def f(value: float) -> str:
        return g.constant(f"f32_{value:g}".replace("-", "m"), np.array(value, np.float32))

    scale = g.op("Div", g.op("Cast", length, to=FLOAT), f(count))
    centres = np.arange(count, dtype=np.float32)[:, None] + np.float32(0.5)
    centre = g.op("Mul", g.constant(f"centres_{count}", centres), scale)
    numbers = (g.constant(f"i64_{n}_", np.array(n, np.int64)) for n in (0, 1))
    first, step = numbers
    place = g.op("Add", g.op("Cast", g.op("Range", first, g.op("Squeeze", length), step), to=FLOAT), f(0.5))
    t = g.op("Div", g.op("Abs", g.op("Sub", place, centre)), g.op("Max", scale, f(1)))
    near = _polynomial(g, t, [f(c) for c in (1.5, -2.5, 0, 1)])
    far = _polynomial(g, t, [f(c) for c in (-0.5, 2.5, -4, 2)])
    weights = g.op("Where", g.op("Less", t, f(1)), near, g.op("Where", g.op("Less", t, f(2)), far, f(0)))
    return g.op("Div", weights, reduce(g, "Sum", weights, 1))


def _polynomial(g: Graph, t: str, coefficients: list[str]) -> str:
    value = coefficients[0]
    for coefficient in coefficients[1:]:
        value = g.op("Add", g.op("Mul", value, t), coefficient)
    return value


def _bytes(g: Graph, x: str) -> str:
    """Rounded as Pillow rounds, to 0 ... 255."""
    half, least, most = (g.constant(f"f32_{v:g}", np.array(v, np.float32)) for v in (0.5, 0, 255))
    return g.op("Clip", g.op("Floor", g.op("Add", x, half)), least, most)
