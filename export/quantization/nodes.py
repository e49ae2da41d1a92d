"""A quantised product as ONNX nodes, in the forms that runtimes put together into one product of eight bits.

ONNX Runtime 1.31 on a CPU makes QGemm of QuantizeLinear, DequantizeLinear and Gemm only where the bias is an int32 with
a DequantizeLinear of its own; with a float bias, or as MatMul and Add, it computes in float, and takes up to five times
as long. TensorRT knows no int32 to dequantise: there the bias stays a float. Of the dynamic form ONNX Runtime makes
DynamicQuantizeMatMul.

Weights whose DequantizeLinear has a scale for each output TensorRT-RTX 1.7 multiplies unscaled, writes the sums in half
precision, and scales them in the next kernel: five products of 127 x 127, and 448 x 448 alone, are beyond 65504. One
scale of the whole tensor goes into the product, where sums are int32 or float32. So on GPUs that one is
DequantizeLinear's, and what outputs are smaller by follows the product, with the bias: the same kernels, and no sum is
larger than those of the largest output. Queries, keys and values are one product then, which that compiler keeps, and
splits in one kernel; with a scale for each output it cuts it in three, in half, from weights dequantised at every run.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from onnx import TensorProto

from clip4str.export.graph import Graph, last
from clip4str.export.quantization.arithmetic import Numbers, Scale, factored_weights, quantised_weights


def static_input(g: Graph, x: str, name: str, scale: Scale) -> str:
    """Rows, rounded to eight bits."""
    zero = g.constant(f"{name}.input_zero", np.array(scale.zero, scale.numbers.dtype))
    place = (g.constant(f"{name}.input_scale", scale.scale), zero)
    saturate: dict[str, Any] = {"saturate": 1} if scale.numbers.floating else {}  # the default, said for all to see
    return g.op("DequantizeLinear", g.op("QuantizeLinear", x, *place, **saturate), *place)


def static_linear(g: Graph, x: str, weight: np.ndarray, bias: np.ndarray, name: str, scale: Scale, weights: str) -> str:
    """Rows (n, in) from static_input -> rows (n, out), for a CPU. scale: of the rows. weights: "s8" or "u8"."""
    # A bias is an integer of step scale x weight's scale: rows of next to no weight must leave it room in 32 bits.
    integers, scales = quantised_weights(weight, np.abs(bias) / (2.0**30 * float(scale.scale)))
    w = g.op("DequantizeLinear", *_weights(g, integers, scales, name, weights), axis=0)
    steps = scales * scale.scale
    b = g.constant(f"{name}.bias", np.rint(bias / steps).astype(np.int32))
    b = g.op("DequantizeLinear", b, g.constant(f"{name}.bias_scale", steps), axis=0)
    return g.op("Gemm", x, w, b, name=last(name), transB=1)


def factored_linear(g: Graph, x: str, weight: np.ndarray, bias: np.ndarray, name: str, numbers: Numbers) -> str:
    """Rows (n, in) from static_input -> rows (n, out), for a GPU."""
    stored, scale, factors = factored_weights(weight, numbers)
    place = (g.constant(f"{name}.weight_scale", scale), g.constant(f"{name}.weight_zero", np.zeros((), numbers.dtype)))
    w = g.op("DequantizeLinear", g.constant(f"{name}.weight", stored), *place)
    y = g.op("Mul", g.op("Gemm", x, w, name=last(name), transB=1), g.constant(f"{name}.weight_factors", factors))
    return g.op("Add", y, g.weight(f"{name}.bias", bias))


def dynamic_linear(g: Graph, x: str, weight: np.ndarray, bias: np.ndarray, name: str, weights: str) -> str:
    """The same, with the range of each batch."""
    integers, scales = quantised_weights(weight)
    quantised, scale, zero = g.op("DynamicQuantizeLinear", x, outputs=3)
    w, steps, zeros = _weights(g, integers.T, scales, name, weights)
    product = g.op("MatMulInteger", quantised, w, zero, zeros, name=last(name))
    y = g.op("Mul", g.op("Cast", product, to=TensorProto.FLOAT), g.op("Mul", scale, steps))
    return g.op("Add", y, g.weight(f"{name}.bias", bias))


def _weights(g: Graph, integers: np.ndarray, scales: np.ndarray, name: str, weights: str) -> tuple[str, str, str]:
    """The stored integers, their scales and their zero points: ONNX Runtime joins nothing without these, 0 or not."""
    zero, dtype = (128, np.uint8) if weights == "u8" else (0, np.int8)
    stored = np.ascontiguousarray(integers.astype(np.int16) + zero, dtype)
    zeros = g.constant(f"{name}.weight_zero", np.full(len(scales), zero, dtype))
    return g.constant(f"{name}.weight", stored), g.constant(f"{name}.weight_scale", scales), zeros
