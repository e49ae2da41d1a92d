"""One pass of a decoder as an ONNX graph; towers.py has the contract.

The query stream enters self-attention as norm_q(pos_queries) alone, and the keys and values there depend on a
content token's position and character alone. With one layer both are tables (kernels/decode_pass/weights.py): what
is left of self-attention is a look-up and two small products.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from clip4str.kernels.decode_pass.weights import content_tables
from clip4str.model.clip4str import Clip4Str
from clip4str.model.config import Config
from clip4str.model.network import DECODER_LAYER_NORM_EPS, Decoder

from .blocks import (
    Weights,
    gelu,
    kv_shape,
    layer_norm,
    linear,
    linear_columns,
    merge_heads,
    named,
    scaled_queries,
    to_rows,
    weights_of,
)
from .graph import MASKED, Graph

FLOAT, INT32, BOOL = TensorProto.FLOAT, TensorProto.INT32, TensorProto.BOOL


def decoder_graph(model: Clip4Str, precision: str, branch: str) -> Graph:
    """branch: "visual", over the image's keys and values, or "cross", over the image's and the caption's."""
    c, w, g = model.config, weights_of(model), Graph(branch, precision)
    name, layer = f"{branch}_decoder", f"{branch}_decoder.layers.0"
    tokens = g.input("tokens", INT32, ("N", "S"))
    attend = g.input("attend", BOOL, ("N", "T", "S"))
    memory = [g.input(f"{branch}_kv", g.float_type, kv_shape(c, c.memory_tokens))]
    if branch == "cross":
        memory.append(g.input("text_kv", g.float_type, kv_shape(c, c.context)))

    def norm(x: str, key: str) -> str:
        return layer_norm(g, x, w, key, DECODER_LAYER_NORM_EPS)

    with g.scope(layer):
        batch = g.op("Shape", attend, start=0, end=2, name="batch")  # N, T
        with g.scope("self_attn"):
            y = content_attention(g, tokens, attend, tables(getattr(model, name)), w, layer)
        x = add_positions(g, y, attend, w[f"{name}.pos_queries"][0], name)
        y = norm(x, f"{layer}.norm1")
        with g.scope("cross_attn"):
            y = memory_attention(g, y, batch, memory, w, c, f"{layer}.cross_attn")
        x = g.op("Add", x, y, name="residual_2")
        x = g.op("Add", x, mlp(g, norm(x, f"{layer}.norm2"), w, layer), name="residual_3")
    with g.scope(name):
        logits = linear(g, norm(x, f"{name}.norm"), *named(w, f"{name}.head"))
        classes = len(c.charset) + 1
        logits = g.op("Reshape", logits, g.op("Concat", batch, g.integers(classes), axis=0))
        answer(g, logits, classes)
    return g


def tables(decoder: Decoder) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Queries (1, h, T, e) by position, scaled; keys and values (T x tokens, h, e) by position and token."""
    queries, *tables = content_tables(decoder)
    keys, values = (table.transpose(0, 1).contiguous().numpy() for table in tables)
    return queries[None].numpy(), keys, values


def content_attention(g: Graph, tokens: str, attend: str, table: tuple[np.ndarray, ...], w: Weights, name: str) -> str:
    """Self-attention of the positions over the content: rows (N x T, d)."""
    queries, keys, values = table
    steps, heads, size = queries.shape[2], keys.shape[1], keys.shape[2]
    first_rows = np.arange(0, len(keys), len(keys) // steps, dtype=np.int32)
    length = g.op("Shape", tokens, start=1, end=2)
    rows = g.op("Add", tokens, first_n(g, g.constant("first_rows", first_rows), 0, length), name="rows")
    k = g.op("Gather", g.weight(f"{name}.content_keys", keys), rows, name="keys")
    v = g.op("Gather", g.weight(f"{name}.content_values", values), rows, name="values")
    q = first_n(g, g.weight(f"{name}.queries", queries), 2, g.op("Shape", attend, start=1, end=2))
    scores = g.op("MatMul", q, g.op("Transpose", k, perm=[0, 2, 3, 1]), name="scores")
    hidden = g.weight("masked", np.array(MASKED, np.float32))
    scores = g.op("Where", g.op("Unsqueeze", attend, g.integers(1)), scores, hidden, name="mask")
    v = g.op("Transpose", v, perm=[0, 2, 1, 3])
    y = g.op("MatMul", g.op("Softmax", scores, axis=-1), v, name="attended")
    y = merge_heads(g, y, heads * size)
    return rows_to_rows(g, y, *named(w, f"{name}.self_attn.out_proj"))


def add_positions(g: Graph, x: str, attend: str, positions: np.ndarray, name: str) -> str:
    """rows (N x T, d) + the first T positional queries"""
    steps, d = g.op("Shape", attend, start=1, end=2), positions.shape[1]
    x = g.op("Reshape", x, g.op("Concat", g.integers(-1), steps, g.integers(d), axis=0))
    x = g.op("Add", x, first_n(g, g.weight(f"{name}.pos_queries", positions), 0, steps), name="residual_1")
    return g.op("Reshape", x, g.integers(-1, d))


def memory_attention(g: Graph, x: str, batch: str, memory: list[str], w: Weights, c: Config, name: str) -> str:
    """Attention over one or two segments of memory under one softmax: rows (N x T, d) -> rows."""
    weight, bias = (w[f"{name}.in_proj_{part}"][: c.d] for part in ("weight", "bias"))
    query = scaled_queries(g, f"{name}.query", weight, bias, c.decoder_heads)
    shape = g.integers(c.decoder_heads, c.d // c.decoder_heads)
    if for_cpu(g):
        q = g.op("Reshape", linear_columns(g, x, *query), g.op("Concat", shape, batch, axis=0))
        q = g.op("Transpose", q, perm=[2, 0, 3, 1])
        y = separate_memories(g, q, memory, c)
    else:
        q = g.op("Reshape", linear(g, x, *query), g.op("Concat", batch, shape, axis=0))
        q = g.op("Transpose", q, perm=[0, 2, 1, 3])
        y = joined_memory(g, q, memory)
    return rows_to_rows(g, merge_heads(g, y, c.d), *named(w, f"{name}.out_proj"))


def separate_memories(g: Graph, q: str, memory: list[str], c: Config) -> str:
    """Only the segments' small scores are joined, which is what a CPU is fastest with."""
    scores, values = [], []
    for kv in memory:
        k, v = keys_and_values(g, kv)
        scores.append(g.op("MatMul", q, g.op("Transpose", k, perm=[0, 1, 3, 2]), name="scores"))
        values.append(v)
    if len(memory) == 1:
        return g.op("MatMul", g.op("Softmax", scores[0], axis=-1), values[0], name="attended")
    probs = g.op("Softmax", g.op("Concat", *scores, axis=-1), axis=-1)
    parts = g.op("Split", probs, g.integers(c.memory_tokens, c.context), outputs=2, axis=-1)
    return g.op("Add", *(g.op("MatMul", p, v, name="attended") for p, v in zip(parts, values)))


def joined_memory(g: Graph, q: str, memory: list[str]) -> str:
    """Two products around a softmax are what TensorRT makes one kernel of: worth a copy of keys and values."""
    k, v = keys_and_values(g, memory[0] if len(memory) == 1 else g.op("Concat", *memory, axis=3, name="memory"))
    scores = g.op("MatMul", q, g.op("Transpose", k, perm=[0, 1, 3, 2]), name="scores")
    return g.op("MatMul", g.op("Softmax", scores, axis=-1), v, name="attended")


def keys_and_values(g: Graph, kv: str) -> list[str]:
    """(N, 2, h, M, e) -> two of (N, h, M, e)"""
    return [g.op("Squeeze", part, g.integers(1)) for part in g.op("Split", kv, outputs=2, axis=1)]


def mlp(g: Graph, x: str, w: Weights, name: str) -> str:
    first, second = named(w, f"{name}.linear1"), named(w, f"{name}.linear2")
    if for_cpu(g):
        return to_rows(g, linear_columns(g, gelu(g, linear_columns(g, x, *first)), *second, rows=False))
    return linear(g, gelu(g, linear(g, x, *first)), *second)


def rows_to_rows(g: Graph, x: str, weight: np.ndarray, bias: np.ndarray, name: str) -> str:
    """A product of few rows, the way round that suits who runs it."""
    return to_rows(g, linear_columns(g, x, weight, bias, name)) if for_cpu(g) else linear(g, x, weight, bias, name)


def for_cpu(g: Graph) -> bool:
    """Half precision is for GPUs."""
    return g.precision == "fp32"


def first_n(g: Graph, value: str, axis: int, n: str) -> str:
    """value[:n] along an axis; n is a vector of one."""
    return g.op("Slice", value, g.integers(0), n, g.integers(axis))


def answer(g: Graph, logits: str, classes: int) -> None:
    """The most likely class of every position and its probability, in float32 whatever the precision."""
    logits = g.float32(logits)
    probs = g.op("ReduceMax", g.op("Softmax", logits, axis=-1), axes=[-1], keepdims=0)
    ids = g.op("Cast", g.op("ArgMax", logits, axis=-1, keepdims=0), to=INT32)
    g.output(ids, "ids", INT32, ("N", "T"))
    g.output(probs, "probs", FLOAT, ("N", "T"))
    g.output(logits, "logits", FLOAT, ("N", "T", classes))
