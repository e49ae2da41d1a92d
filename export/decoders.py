"""One pass of a decoder as an ONNX graph; towers.py has the contract.

The query stream enters self-attention as norm_q(pos_queries) alone, and the keys and values there depend on a
content token's position and character alone. With one layer both are tables (kernels/decode_pass/weights.py): what
is left of self-attention is a look-up and two small products. Where a charset of thousands or very long words would
make a table of gigabytes, keys and values are computed instead.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from clip4str.kernels.decode_pass.weights import content_queries, content_tables
from clip4str.model.clip4str import Clip4Str
from clip4str.model.config import Config
from clip4str.model.network import DECODER_LAYER_NORM_EPS, Decoder

from .blocks import (
    Weights,
    gelu,
    kv_shape,
    layer_norm,
    linear,
    merge_heads,
    named,
    scaled_queries,
    weights_of,
)
from .graph import MASKED, Graph

LARGEST_TABLE = 1 << 23  # numbers; that of H/14 with ASCII has a third of them
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
            y = content_attention(g, tokens, attend, getattr(model, name), w, layer)
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


def content_attention(g: Graph, tokens: str, attend: str, decoder: Decoder, w: Weights, name: str) -> str:
    """Self-attention of the positions over the content: rows (N x T, d)."""
    (steps, d), tokens_known = decoder.pos_queries.shape[1:], decoder.text_embed.embedding.num_embeddings
    if steps * tokens_known * d > LARGEST_TABLE:
        queries = content_queries(decoder)
        k, v = computed_content(g, tokens, decoder, w, name)
    else:
        queries, *tables = content_tables(decoder)
        k, v = looked_up_content(g, tokens, [t.transpose(0, 1).contiguous().numpy() for t in tables], steps, name)
    heads, size = queries.shape[0], queries.shape[2]
    q = g.weight(f"{name}.queries", queries[None].numpy())  # [1, h, T, e]
    q = first_n(g, q, 2, g.op("Shape", attend, start=1, end=2))
    scores = g.op("MatMul", q, g.op("Transpose", k, perm=[0, 2, 3, 1]), name="scores")
    hidden = g.weight("masked", np.array(MASKED, np.float32))
    scores = g.op("Where", g.op("Unsqueeze", attend, g.integers(1)), scores, hidden, name="mask")
    v = g.op("Transpose", v, perm=[0, 2, 1, 3])
    y = g.op("MatMul", g.op("Softmax", scores, axis=-1), v, name="attended")
    y = merge_heads(g, y, heads * size)
    return linear(g, y, *named(w, f"{name}.self_attn.out_proj"))


def looked_up_content(g: Graph, tokens: str, tables: list[np.ndarray], steps: int, name: str) -> list[str]:
    """Keys and values (N, S, h, e) of the content, out of tables (T x tokens, h, e) by position and token."""
    rows = len(tables[0])
    first_rows = g.constant("first_rows", np.arange(0, rows, rows // steps, dtype=np.int32))
    row = g.op("Add", tokens, first_n(g, first_rows, 0, g.op("Shape", tokens, start=1, end=2)), name="rows")
    return [
        g.op("Gather", g.weight(f"{name}.content_{kind}", table), row, name=kind)
        for kind, table in zip(("keys", "values"), tables)
    ]


def computed_content(g: Graph, tokens: str, decoder: Decoder, w: Weights, name: str) -> list[str]:
    """The same without tables: embedding and position, normalised and projected."""
    root, d = name.rpartition(".layers.")[0], decoder.pos_queries.shape[2]
    root_of_d = np.full((1, 1), d**0.5, np.float32)
    embedding = g.product(f"{root}.content", w[f"{root}.text_embed.embedding.weight"], root_of_d)
    positions = np.pad(w[f"{root}.pos_queries"][0, :-1], ((1, 0), (0, 0)))  # the start token gets none
    length = g.op("Shape", tokens, start=1, end=2)
    positions_seen = first_n(g, g.weight(f"{root}.positions", positions), 0, length)
    content = g.op("Add", g.op("Gather", g.weight(f"{root}.content", embedding), tokens), positions_seen)
    rows = layer_norm(g, g.op("Reshape", content, g.integers(-1, d)), w, f"{name}.norm_c", DECODER_LAYER_NORM_EPS)
    heads = decoder.layer.self_attn.heads
    shape = g.op("Concat", g.op("Shape", tokens), g.integers(heads, d // heads), axis=0)
    found = []
    for i, kind in enumerate(("keys", "values"), 1):
        weight, bias = (w[f"{name}.self_attn.in_proj_{part}"][i * d : (i + 1) * d] for part in ("weight", "bias"))
        found.append(g.op("Reshape", linear(g, rows, weight, bias, f"{name}.{kind}"), shape, name=kind))
    return found


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
    q = g.op("Reshape", linear(g, x, *query), g.op("Concat", batch, shape, axis=0))
    q = g.op("Transpose", q, perm=[0, 2, 1, 3])
    y = separate_memories(g, q, memory, c) if for_cpu(g) else joined_memory(g, q, memory)
    return linear(g, merge_heads(g, y, c.d), *named(w, f"{name}.out_proj"))


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
    return linear(g, gelu(g, linear(g, x, *named(w, f"{name}.linear1"))), *named(w, f"{name}.linear2"))


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
