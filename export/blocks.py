"""What both towers and both decoders are made of, as ONNX nodes.

Shapes: N images, S tokens each, w features, h heads of e = w / h features. A layer's input and output are
rows, (N x S, w): one matrix product for the whole batch, which runtimes fuse with its bias, and whose weights they
lay out for their kernels while they load.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import torch

from clip4str.model.config import Config

from .graph import Graph, last

if TYPE_CHECKING:
    from .quantization.plan import Quantization

Weights = Mapping[str, np.ndarray]


def weights_of(module: torch.nn.Module) -> Weights:
    """The state_dict as float32 arrays that share the module's memory."""
    return {name: tensor.detach().float().numpy() for name, tensor in module.state_dict().items()}


def named(w: Weights, name: str) -> tuple[np.ndarray, np.ndarray, str]:
    """(weight, bias, name): the last arguments of `linear`"""
    return w[f"{name}.weight"], w[f"{name}.bias"], name


def linear(
    g: Graph, x: str, weight: np.ndarray, bias: np.ndarray | None, name: str, quantization: Quantization | None = None
) -> str:
    """Rows (n, in) -> rows (n, out). weight (out, in) as torch keeps it. quantization: None computes in floats, as do
    products that it does not cover."""
    if quantization is not None and bias is not None and quantization.covers(name):
        return quantization.linear(g, x, weight, bias, name)
    inputs = [x, g.weight(f"{name}.weight", weight)]
    if bias is not None:
        inputs.append(g.weight(f"{name}.bias", bias))
    return g.op("Gemm", *inputs, name=last(name), transB=1)


def layer_norm(g: Graph, x: str, w: Weights, name: str, eps: float) -> str:
    scale, bias = g.weight(f"{name}.weight", w[f"{name}.weight"]), g.weight(f"{name}.bias", w[f"{name}.bias"])
    return g.op("LayerNormalization", x, scale, bias, name=last(name), axis=-1, epsilon=eps)


def quick_gelu(g: Graph, x: str) -> str:
    gate = g.op("Sigmoid", g.op("Mul", x, g.weight("quick_gelu_alpha", np.array(1.702, np.float32))))
    return g.op("Mul", x, gate)


def gelu(g: Graph, x: str) -> str:
    """The exact one, written the way that every runtime knows to fuse."""
    half, one, root = (
        g.weight(f"gelu_{name}", np.array(value, np.float32))
        for name, value in (("half", 0.5), ("one", 1.0), ("sqrt2", np.sqrt(2.0)))
    )
    bell = g.op("Add", g.op("Erf", g.op("Div", x, root)), one)
    return g.op("Mul", g.op("Mul", x, bell), half)


def merge_heads(g: Graph, x: str, width: int) -> str:
    """(N, h, S, e) -> rows (N x S, w)"""
    return g.op("Reshape", g.op("Transpose", x, perm=[0, 2, 1, 3]), g.integers(-1, width))


def scaled_queries(
    g: Graph, name: str, weight: np.ndarray, bias: np.ndarray, heads: int
) -> tuple[np.ndarray, np.ndarray, str]:
    """A projection (rows, w) whose first w rows make queries, with 1/sqrt(e) in them, so that scores need no scaling
    (and stay small in half); with its bias and name, as `linear` takes them."""
    scale = np.ones((len(weight), 1), np.float32)
    scale[: weight.shape[1]] = (weight.shape[1] // heads) ** -0.5
    return g.product(f"{name}.weight", weight, scale), bias * scale[:, 0], name


def residual_block(
    g: Graph,
    x: str,
    w: Weights,
    name: str,
    heads: int,
    length: int,
    eps: float,
    mask: str = "",
    quantization: Quantization | None = None,
) -> str:
    """One block of either tower: rows -> rows. length: S. mask (1, 1, S, S) is added to the scores."""
    with g.scope(name):
        y = layer_norm(g, x, w, f"{name}.ln_1", eps)
        y = self_attention(g, y, w, f"{name}.attn", heads, length, mask, quantization)
        x = g.op("Add", x, y, name="residual_1")
        y = layer_norm(g, x, w, f"{name}.ln_2", eps)
        return g.op("Add", x, mlp(g, y, w, f"{name}.mlp", quantization), name="residual_2")


def mlp(g: Graph, x: str, w: Weights, name: str, quantization: Quantization | None) -> str:
    y = quick_gelu(g, linear(g, x, *named(w, f"{name}.c_fc"), quantization))
    return linear(g, y, *named(w, f"{name}.c_proj"), quantization)


def self_attention(
    g: Graph,
    x: str,
    w: Weights,
    name: str,
    heads: int,
    length: int,
    mask: str,
    quantization: Quantization | None,
) -> str:
    parts = queries_keys_values(g, x, w, f"{name}.in_proj", heads, quantization)
    width = w[f"{name}.in_proj_weight"].shape[1]
    q, k, v = (g.op("Reshape", part, g.integers(-1, length, heads, width // heads)) for part in parts)
    q, v = (g.op("Transpose", part, perm=[0, 2, 1, 3]) for part in (q, v))
    k = g.op("Transpose", k, perm=[0, 2, 3, 1])
    scores = g.op("MatMul", q, k, name="scores")
    if mask:
        scores = g.op("Add", scores, mask, name="mask")
    y = merge_heads(g, g.op("MatMul", g.op("Softmax", scores, axis=-1), v, name="attended"), width)
    return linear(g, y, *named(w, f"{name}.out_proj"), quantization)


def queries_keys_values(
    g: Graph, x: str, w: Weights, name: str, heads: int, quantization: Quantization | None
) -> list[str]:
    projection = scaled_queries(g, name, w[f"{name}_weight"], w[f"{name}_bias"], heads)
    width = projection[0].shape[1]
    qkv = linear(g, x, *projection, quantization)
    return g.op("Split", qkv, g.integers(width, width, width), outputs=3, axis=1)


def kv_shape(c: Config, length: int) -> tuple[str | int, ...]:
    """Keys and values of `length` memory tokens, as they go from stage to stage."""
    return "N", 2, c.decoder_heads, length, c.d // c.decoder_heads
