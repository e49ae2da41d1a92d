"""What the stage files look like: the form that TensorRT and ONNX Runtime fuse, and nothing else."""

from __future__ import annotations

import hashlib
from collections import Counter

import numpy as np
import onnx
import pytest
from onnx import TensorProto, numpy_helper

from clip4str.export import graph as graph_module
from clip4str.runtime.bundle import STAGES

PRECISIONS = ("fp32", "fp16")
every_file = pytest.mark.parametrize("precision, stage", [(p, s) for p in PRECISIONS for s in STAGES])


def kinds(model: onnx.ModelProto) -> Counter:
    return Counter(node.op_type for node in model.graph.node)


@every_file
def test_valid_and_labelled(graphs, precision, stage):
    model = graphs[precision, stage]
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version) for o in model.opset_import] == [("", 17)]
    metadata = {p.key: p.value for p in model.metadata_props}
    assert metadata["stage"] == stage and metadata["precision"] == precision and metadata["clip4str"]
    assert stage in model.graph.doc_string
    names = [node.name for node in model.graph.node]
    assert len(set(names)) == len(names) and all(names)


@every_file
def test_no_control_flow_and_no_exotic_operators(graphs, precision, stage):
    allowed = {
        "Add", "ArgMax", "Cast", "Concat", "Conv", "Div", "Erf", "Gather", "Gemm", "LayerNormalization", "MatMul",
        "Mul", "Pad", "ReduceMax", "Reshape", "Shape", "Sigmoid", "Slice", "Softmax", "Split", "Squeeze",
        "Transpose", "Unsqueeze", "Where",
    }  # fmt: skip
    assert set(kinds(graphs[precision, stage])) <= allowed


@every_file
def test_interface(graphs, precision, stage):
    kv = ["N", 2, 8, 17, 8]
    decoder_inputs = {"tokens": ["N", "S"], "attend": ["N", "T", "S"]}
    answers = {"ids": ["N", "T"], "probs": ["N", "T"], "logits": ["N", "T", 95]}
    text_kv = ["N", 2, 8, 16, 8]
    expected = {
        "image": ({"pixels": ["N", 3, 64, 64]}, {"visual_kv": kv, "cross_kv": kv}),
        "visual": ({**decoder_inputs, "visual_kv": kv}, answers),
        "text": ({"bpe": ["N", 16]}, {"text_kv": text_kv}),
        "cross": ({**decoder_inputs, "cross_kv": kv, "text_kv": text_kv}, answers),
    }
    types = {"tokens": TensorProto.INT32, "bpe": TensorProto.INT32, "ids": TensorProto.INT32}
    types["attend"] = TensorProto.BOOL
    half = TensorProto.FLOAT16 if precision == "fp16" else TensorProto.FLOAT
    types |= {"visual_kv": half, "cross_kv": half, "text_kv": half}  # what only goes from stage to stage
    graph = graphs[precision, stage].graph
    for values, shapes in zip((graph.input, graph.output), expected[stage]):
        found = {v.name: v.type.tensor_type for v in values}
        assert {k: [d.dim_param or d.dim_value for d in v.shape.dim] for k, v in found.items()} == shapes
        assert {k: v.elem_type for k, v in found.items()} == {k: types.get(k, TensorProto.FLOAT) for k in shapes}


@every_file
def test_every_layer_norm_is_one_operator(graphs, tiny_model, precision, stage):
    blocks = {"image": tiny_model.config.image_layers, "text": tiny_model.config.text_layers}
    # Decoders have norm1, norm2 and norm; norm_q and norm_c are in the tables.
    expected = {"image": 2 * blocks["image"] + 2, "text": 2 * blocks["text"] + 1, "visual": 3, "cross": 3}
    found = kinds(graphs[precision, stage])
    assert found["LayerNormalization"] == expected[stage]
    assert not found["ReduceMean"] and not found["Sqrt"] and not found["Pow"]
    for node in graphs[precision, stage].graph.node:
        if node.op_type == "LayerNormalization":
            stash = [a.i for a in node.attribute if a.name == "stash_type"]
            assert stash in ([], [TensorProto.FLOAT])  # the default: accumulate in float32


@every_file
def test_attention_is_two_products_around_a_softmax(graphs, precision, stage):
    graph = graphs[precision, stage].graph
    makers = {name: node for node in graph.node for name in node.output}
    users = {name: node for node in graph.node for name in node.input}
    softmaxes = [n for n in graph.node if n.op_type == "Softmax" and "logits" not in n.input]
    assert softmaxes
    for node in softmaxes:
        before = makers[node.input[0]]
        if before.op_type in ("Where", "Add", "Concat"):  # a mask, or the scores of two segments
            before = next(makers[i] for i in before.input if i in makers and makers[i].op_type == "MatMul")
        after = users[node.output[0]]
        after = users[after.output[0]] if after.op_type == "Split" else after
        assert (before.op_type, after.op_type) == ("MatMul", "MatMul")


@every_file
def test_weights_are_stored_once_and_used(graphs, precision, stage):
    graph = graphs[precision, stage].graph
    used = {name for node in graph.node for name in node.input}
    arrays = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    assert set(arrays) <= used
    large = [a for a in arrays.values() if a.size > 64]
    assert len({hashlib.sha256(a.tobytes()).digest() for a in large}) == len(large)


@every_file
def test_weights_stand_on_the_right_of_products(graphs, precision, stage):
    """There alone ONNX Runtime lays them out for its kernels while it loads."""
    graph = graphs[precision, stage].graph
    weights = {t.name for t in graph.initializer}
    products = [n for n in graph.node if n.op_type == "Gemm"]
    assert products and all(n.input[1] in weights and n.input[0] not in weights for n in products)


@every_file
def test_casts_only_where_values_enter_and_leave(graphs, precision, stage):
    graph = graphs[precision, stage].graph
    outer = {v.name for v in (*graph.input, *graph.output)}
    outputs = {"image": 0, "text": 0, "visual": 1, "cross": 1}
    inputs = {"image": 1, "text": 0, "visual": 0, "cross": 0}
    casts = [n for n in graph.node if n.op_type == "Cast"]
    assert all({*n.input, *n.output} & outer for n in casts)
    integer = 1 if stage in ("visual", "cross") else 0  # ArgMax gives int64
    assert len(casts) == integer + (inputs[stage] + outputs[stage] if precision == "fp16" else 0)


@pytest.mark.parametrize("stage", STAGES)
def test_half_files_hold_half_weights(graphs, stage):
    types = {
        p: {t.data_type for t in graphs[p, stage].graph.initializer} - {TensorProto.INT64, TensorProto.INT32}
        for p in PRECISIONS
    }
    assert types == {"fp32": {TensorProto.FLOAT}, "fp16": {TensorProto.FLOAT16}}
    assert kinds(graphs["fp16", stage]) - Counter("Cast") - kinds(graphs["fp32", stage]) <= Counter({"Cast": 9})


def test_patches_are_a_convolution(graphs):
    assert [kinds(graphs[p, "image"])["Conv"] for p in PRECISIONS] == [1, 1]


def test_queries_of_self_attention_are_folded(graphs, tiny_model):
    graph = graphs["fp32", "visual"].graph
    table = next(t for t in graph.initializer if t.name.endswith(".queries"))
    assert numpy_helper.to_array(table).shape == (1, 8, 26, 8)
    assert not any("norm_q" in t.name or "norm_c" in t.name for t in graph.initializer)
    assert np.prod(next(t for t in graph.initializer if t.name.endswith("content_keys")).dims) == 26 * 97 * 64


@pytest.mark.parametrize("beside", [False, True])
def test_denormal_weights_are_written_as_0(tmp_path, monkeypatch, beside):
    """In the file, and in the one beside it."""
    if beside:
        monkeypatch.setattr(graph_module, "MAX_EMBEDDED_BYTES", 0)
    values = np.tile(np.array([0.5, 1e-40, -1e-45, 2.0**-126], np.float32), 512)
    graph = graph_module.Graph("g", "fp32")
    x = graph.input("x", TensorProto.FLOAT, [2048])
    graph.output(graph.op("Mul", x, graph.weight("w", values)), "y", TensorProto.FLOAT, [2048])
    paths = graph.save(tmp_path / "g.onnx", {}, "")
    assert len(paths) == 1 + beside
    (weight,) = onnx.load(tmp_path / "g.onnx").graph.initializer
    want = np.tile(np.array([0.5, 0, 0, 2.0**-126], np.float32), 512)
    np.testing.assert_array_equal(numpy_helper.to_array(weight), want)
