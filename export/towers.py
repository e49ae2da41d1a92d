"""The image and the text stage as ONNX graphs; decoders.py has the other two.

Names, shapes and types of their inputs and outputs are the bundle's contract. N images, M memory tokens
(1 + patches), T positions to predict, S content positions (T, S <= 26), C classes, h decoder heads of e features:

    image   pixels float32 (N, 3, H, W)        -> visual_kv, cross_kv (N, 2, h, M, e) [, draft int32 (N, F)]
    visual  tokens int32 (N, S), attend bool (N, T, S), visual_kv
                    -> ids int32 (N, T), probs float32 (N, T), logits float32 (N, T, C)
    text    bpe int32 (N, 16)                  -> text_kv (N, 2, h, 16, e)
    cross   tokens, attend, cross_kv, text_kv  -> ids, probs, logits

draft: the id that each of the F frames of the draft head shows, where the network has one; see runtime/drafts.py.
Keys and values are float32, in half precision float16: the fused kernels read them as the engines write them.

`quantization`, the plan of an eight-bit bundle, says which products of the blocks are quantised, and how; `precision`
is that of everything else.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from onnx import TensorProto

from clip4str.model.clip4str import Clip4Str
from clip4str.model.config import Config
from clip4str.model.network import IMAGE_LAYER_NORM_EPS, TEXT_LAYER_NORM_EPS

from .blocks import Weights, kv_shape, layer_norm, linear, named, residual_block, weights_of
from .graph import MASKED, OPSET, Graph

if TYPE_CHECKING:
    from .quantization.plan import Quantization

FLOAT, INT32 = TensorProto.FLOAT, TensorProto.INT32


def image_graph(model: Clip4Str, precision: str, quantization: Quantization | None = None) -> Graph:
    c, w, g = model.config, *_begin(model, "image", precision, quantization)
    name, width = "clip_model.visual", c.image_width
    pixels = g.input("pixels", FLOAT, ("N", 3, *c.image_size))
    with g.scope(name):
        kernel = g.weight(f"{name}.conv1.weight", w[f"{name}.conv1.weight"])
        x = g.op("Conv", pixels, kernel, name="conv1", kernel_shape=c.patch_size, strides=c.patch_size)
        x = g.op("Transpose", g.op("Reshape", x, g.integers(0, width, -1)), perm=[0, 2, 1])  # [N, M - 1, w]
        # The class token is an empty row in front, filled by the positional embedding: no shape arithmetic.
        x = g.op("Pad", x, g.integers(0, 1, 0, 0, 0, 0), mode="constant")
        positions = w[f"{name}.positional_embedding"].copy()
        positions[0] += w[f"{name}.class_embedding"]
        x = g.op("Add", x, g.weight(f"{name}.positional_embedding", positions))
        x = g.op("Reshape", x, g.integers(-1, width))
    x = layer_norm(g, x, w, f"{name}.ln_pre", IMAGE_LAYER_NORM_EPS)
    for i in range(c.image_layers):
        block = f"{name}.transformer.resblocks.{i}"
        x = residual_block(
            g, x, w, block, c.image_heads, c.memory_tokens, IMAGE_LAYER_NORM_EPS, quantization=quantization
        )
    x = layer_norm(g, x, w, f"{name}.ln_post", IMAGE_LAYER_NORM_EPS)
    memory = linear(g, x, w[f"{name}.proj"].T, None, f"{name}.proj")
    memory_outputs(g, memory, w, c, c.memory_tokens, {"visual_kv": "visual", "cross_kv": "cross"})
    if c.draft_frames:
        draft_output(g, memory, w, c)
    return g


def draft_output(g: Graph, memory: str, w: Weights, c: Config) -> None:
    """The draft head on rows of `memory`: the rows of patches that a column has side by side."""
    (rows, columns), classes = c.grid, len(c.charset) + 1
    with g.scope("draft_head"):
        x = g.op("Reshape", memory, g.integers(-1, c.memory_tokens, c.d))
        x = g.op("Slice", x, g.integers(1), g.integers(c.memory_tokens), g.integers(1))  # without the class token
        if rows > 1:
            x = g.op("Reshape", x, g.integers(-1, rows, columns, c.d))
            x = g.op("Transpose", x, perm=[0, 2, 1, 3])
        logits = linear(g, g.op("Reshape", x, g.integers(-1, rows * c.d)), *named(w, "draft_head"))
        logits = g.op("Reshape", logits, g.integers(-1, c.draft_positions, classes))
        frames = g.op("Cast", g.op("ArgMax", logits, axis=-1, keepdims=0), to=INT32)
    g.output(frames, "draft", INT32, ("N", c.draft_positions))


def text_graph(model: Clip4Str, precision: str, quantization: Quantization | None = None) -> Graph:
    c, w, g = model.config, *_begin(model, "text", precision, quantization)
    name, length = "clip_model", c.context
    bpe = g.input("bpe", INT32, ("N", length))
    small = quantization is not None and quantization.touches("text")
    x = embedded(g, bpe, w[f"{name}.token_embedding.weight"], f"{name}.token_embedding", small)
    x = g.op("Add", x, g.weight(f"{name}.positional_embedding", w[f"{name}.positional_embedding"][:length]))
    x = g.op("Reshape", x, g.integers(-1, c.text_width))
    causal = np.where(np.tri(length, dtype=bool), 0, MASKED).astype(np.float32)
    mask = g.weight("causal_mask", causal[None, None])
    for i in range(c.text_layers):
        block = f"{name}.transformer.resblocks.{i}"
        x = residual_block(g, x, w, block, c.text_heads, length, TEXT_LAYER_NORM_EPS, mask, quantization)
    x = layer_norm(g, x, w, f"{name}.ln_final", TEXT_LAYER_NORM_EPS)
    memory = linear(g, x, w[f"{name}.text_projection"].T, None, f"{name}.text_projection")
    memory_outputs(g, memory, w, c, length, {"text_kv": "cross"})
    return g


def embedded(g: Graph, bpe: str, table: np.ndarray, name: str, small: bool) -> str:
    """Rows of the table; if `small` it is stored in half: CLIP's is two thirds of a base size's 8-bit text stage."""
    if not small or g.precision == "fp16":
        return g.op("Gather", g.weight(name, table), bpe)
    return g.op("Cast", g.op("Gather", g.constant(name, g.halved(name, table)), bpe), to=FLOAT)


def _begin(model: Clip4Str, stage: str, precision: str, quantization: Quantization | None) -> tuple[Weights, Graph]:
    """The network's weights, smoothed where the plan says so, and an empty graph."""
    if quantization is None:
        return weights_of(model), Graph(stage, precision)
    return quantization.folded(weights_of(model)), Graph(stage, precision, max(OPSET, quantization.opset))


def memory_outputs(g: Graph, memory: str, w: Weights, c: Config, length: int, outputs: dict[str, str]) -> None:
    """Cross-attention keys and values of `memory` for {output name: decoder}."""
    size = c.d // c.decoder_heads
    for output, branch in outputs.items():
        name = f"{branch}_decoder.layers.0.cross_attn"
        weight, bias = (w[f"{name}.in_proj_{part}"][c.d :] for part in ("weight", "bias"))
        with g.scope(name):
            kv = linear(g, memory, weight, bias, f"{name}.key_value")
            kv = g.op("Reshape", kv, g.integers(-1, length, 2, c.decoder_heads, size))
            kv = g.op("Transpose", kv, perm=[0, 2, 3, 1, 4])
        g.output(kv, output, g.float_type, kv_shape(c, length))
