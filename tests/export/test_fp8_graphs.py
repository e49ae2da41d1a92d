"""E4M3 stages: what nodes they have, that ONNX Runtime computes what they say, and what TensorRT makes of them."""

from __future__ import annotations

from collections import Counter

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from int8_networks import plan_of, session
from onnx import TensorProto, numpy_helper

from clip4str.export.engines.build_log import facts_of
from clip4str.export.graph import Graph
from clip4str.export.quantization.arithmetic import Range
from clip4str.export.quantization.plan import Quantization, products_of
from clip4str.export.quantization.products import Emulate, stage_outputs
from clip4str.export.stage_files import write_stages
from clip4str.runtime.bundle import STAGES

NAME = products_of("image.0.attn")[0]  # queries, keys and values
PRODUCTS = {"image": 8, "text": 4}  # of random_model's two and one blocks
INPUT, OUTPUT = 768, 24


@pytest.fixture(scope="module")
def network(random_model):
    return random_model(seed=3)


@pytest.fixture(scope="module")
def plan(network) -> Quantization:
    return plan_of(network, "gpu", 0.5, precision="fp8")


@pytest.fixture(scope="module")
def folder(network, plan, tmp_path_factory):
    target = tmp_path_factory.mktemp("fp8")
    write_stages(network, target, plan.precision, quantization=plan)
    return target


@pytest.mark.parametrize("stage", STAGES)
def test_files_are_valid_and_say_what_they_are(folder, stage):
    model = onnx.load(folder / f"{stage}.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert {p.key: p.value for p in model.metadata_props}["precision"] == "fp8"
    assert [o.domain for o in model.opset_import] == [""]
    kinds, types = Counter(n.op_type for n in model.graph.node), {t.data_type for t in model.graph.initializer}
    if stage in PRODUCTS:
        assert model.opset_import[0].version == 19
        assert (kinds["QuantizeLinear"], kinds["DequantizeLinear"]) == (PRODUCTS[stage], 2 * PRODUCTS[stage])
        saturating = [a.i for n in model.graph.node if n.op_type == "QuantizeLinear" for a in n.attribute]
        assert saturating == [1] * PRODUCTS[stage] and TensorProto.FLOAT8E4M3FN in types
    else:
        assert not kinds["QuantizeLinear"] and TensorProto.FLOAT8E4M3FN not in types


def test_weights_take_a_byte_each(network, folder):
    stored = [t for t in onnx.load(folder / "image.onnx").graph.initializer if t.data_type == TensorProto.FLOAT8E4M3FN]
    weights = {t.name: numpy_helper.to_array(t) for t in stored if t.dims}
    assert len(weights) == 8 and sum(len(t.raw_data) for t in stored if t.dims) == sum(w.size for w in weights.values())
    assert {w.dtype for w in weights.values()} == {np.dtype(ml_dtypes.float8_e4m3fn)}


def one_product(path, weight, bias, range_):
    plan = Quantization(target="gpu", weights="e4m3", ranges={NAME: range_})
    g = Graph("one", plan.precision, plan.opset)
    x = g.input("x", TensorProto.FLOAT, ("n", weight.shape[1]))
    g.output(g.float32(plan.linear(g, x, weight, bias, NAME)), "y", TensorProto.FLOAT, ("n", weight.shape[0]))
    g.save(path, {}, "")
    return g


@pytest.fixture
def arrays():
    random = np.random.default_rng(5)
    weight = (0.05 * random.standard_normal((OUTPUT, INPUT)) * np.exp(random.normal(0, 1, (OUTPUT, 1)))).astype("f")
    return random.standard_normal((7, INPUT)).astype("f") * 2, weight, random.standard_normal(OUTPUT).astype("f")


def test_one_product_is_exactly_these_numbers(arrays, tmp_path):
    """By torch's E4M3, from the definitions alone; some inputs are clipped."""
    x, weight, bias = arrays
    one_product(tmp_path / "one.onnx", weight, bias, Range(-4.0, 3.0))
    got = session(tmp_path / "one.onnx", e4m3=True).run(None, {"x": x})[0]
    e4m3 = torch.float8_e4m3fn
    step = float(np.float16(4 / 448))
    rounded = torch.from_numpy(x.astype(np.float16)).float().div(step).clamp(-448, 448).to(e4m3).double().mul(step)
    peaks = np.abs(weight).max(axis=1)
    scale = float(np.float16(peaks.max() / 448))
    scales = torch.from_numpy(scale * (peaks / (scale * 448)).clip(2**-6, 1).astype(np.float16).astype(float))[:, None]
    numbers = torch.from_numpy(weight).double().div(scales).clamp(-448, 448).float().to(e4m3).double().mul(scales)
    want = (rounded @ numbers.T).numpy() + bias
    unrounded = x.clip(-4, 4).astype(float) @ weight.T.astype(float) + bias
    assert np.abs(x).max() > 4 and np.abs(got - want).max() < 0.003 * np.abs(want).max()  # what half precision adds
    assert np.abs(got - want).max() < 0.1 * np.abs(got - unrounded).max()


@pytest.mark.parametrize("stage", ["image", "text"])
def test_stages_are_near_the_float32_ones_and_nearer_to_their_emulation(network, plan, folder, stage):
    random = np.random.default_rng(0)
    if stage == "image":
        feed = {"pixels": random.standard_normal((4, 3, 32, 64)).astype(np.float32)}
        inputs = torch.from_numpy(feed["pixels"])
    else:
        inputs = network.tokenizer(["word", "another", "", "x9"])
        feed = {"bpe": inputs}
    outputs = session(folder / f"{stage}.onnx", e4m3=True).run(None, feed)
    got = torch.cat([torch.from_numpy(y.astype(np.float32)).flatten() for y in outputs])
    with torch.inference_mode():
        exact = stage_outputs(network, stage, inputs)
        with Emulate(network, plan):
            emulated = stage_outputs(network, stage, inputs)
    assert 1e-3 < float((got - exact).norm() / exact.norm()) < 0.12
    assert float((got - emulated).norm()) < 0.75 * float((got - exact).norm())  # half moves what it rounds


@pytest.mark.parametrize("capability", ["SM89", "SM120"])
@pytest.mark.parametrize("stage", ["image", "text"])
def test_tensorrt_makes_e4m3_products_of_them(folder, stage, capability):
    trt = pytest.importorskip("tensorrt_rtx")
    facts = facts_of(compiled(trt, folder / f"{stage}.onnx", capability)[1])
    assert facts.products["FP8"] == PRODUCTS[stage] and "other" not in facts.products and not facts.unpacked


def compiled(trt, path, capability) -> tuple[bytes, str]:
    """The engine, and what the compiler says of its layers, a line each."""
    from test_int8_tensorrt import rtx_build

    plan, lines = rtx_build(trt, path, capability)
    return plan, "\n".join(lines)
