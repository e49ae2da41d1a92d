"""A quantised product as ONNX nodes, in the forms that runtimes put together into one integer product.

ONNX Runtime 1.31 on a CPU makes QGemm of QuantizeLinear, DequantizeLinear and Gemm only where the bias is an int32 with
a DequantizeLinear of its own; with a float bias, or as MatMul and Add, it computes in float, and takes up to five times
as long. TensorRT knows no int32 to dequantise: there the bias stays a float. Of the dynamic form ONNX Runtime makes
DynamicQuantizeMatMul.

A Gemm whose rows are split afterwards TensorRT cuts in three itself, and then computes in half, from weights that it
dequantises at every run. So queries, keys and values are three products there; it joins them, in integers.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from clip4str.export.graph import Graph, last
from clip4str.export.int8.arithmetic import Scale, quantised_weights


def static_input(g: Graph, x: str, name: str, scale: Scale) -> str:
    """Rows, rounded to eight bits."""
    zero = g.constant(f"{name}.input_zero", np.array(scale.zero, scale.dtype))
    place = (g.constant(f"{name}.input_scale", scale.scale), zero)
    return g.op("DequantizeLinear", g.op("QuantizeLinear", x, *place), *place)


def static_linear(
    g: Graph, x: str, weight: np.ndarray, bias: np.ndarray, name: str, scale: Scale, weights: str, float_bias: bool
) -> str:
    """Rows (n, in) from static_input -> rows (n, out). scale: of the rows. weights: "s8" or "u8"."""
    floats = np.float16 if g.float_type == TensorProto.FLOAT16 else np.float32
    # A bias is an integer of step scale x weight's scale: rows of next to no weight must leave it room in 32 bits.
    least = 0.0 if float_bias else np.abs(bias) / (2.0**30 * float(scale.scale))
    integers, scales = quantised_weights(weight, floats, least)
    w = g.op("DequantizeLinear", *_weights(g, integers, scales, name, weights), axis=0)
    if float_bias:
        b = g.weight(f"{name}.bias", bias)
    else:
        steps = scales * scale.scale
        b = g.constant(f"{name}.bias", np.rint(bias / steps).astype(np.int32))
        b = g.op("DequantizeLinear", b, g.constant(f"{name}.bias_scale", steps), axis=0)
    return g.op("Gemm", x, w, b, name=last(name), transB=1)


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
