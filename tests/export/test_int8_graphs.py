"""Quantised stages: what nodes they have, that they compute in integers, and what those integers are."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from int8_networks import HERE, optimised_kinds, plan_of, session
from onnx import TensorProto, numpy_helper

from clip4str.export.graph import Graph
from clip4str.export.quantization.arithmetic import U8, Range, activation_scale, quantised_weights
from clip4str.export.quantization.plan import Quantization, products_of, unit_of, units_of, weight_of
from clip4str.export.quantization.products import Emulate, stage_outputs
from clip4str.export.stage_files import stage_graph, write_stages
from clip4str.runtime.bundle import STAGES

IN, OUT, ROWS = 24, 40, 7
IMAGE_PRODUCTS, TEXT_PRODUCTS = 8, 4  # of random_model's two and one blocks
NAME = products_of("image.0.mlp")[0]


@pytest.fixture(scope="module")
def network(random_model):
    return random_model(seed=3)


@pytest.fixture(scope="module")
def plans(network) -> dict[str, Quantization]:
    return {
        "gpu": plan_of(network, "gpu", 0.5),
        "cpu": plan_of(network, "cpu", 0.5),
        "dynamic": plan_of(network, "cpu", 0.5, "dynamic"),
    }


@pytest.fixture(scope="module")
def folders(network, plans, tmp_path_factory) -> dict[str, object]:
    """Stage files by plan, and "fp32"."""
    made = {name: tmp_path_factory.mktemp(name) for name in (*plans, "fp32")}
    for name, plan in plans.items():
        write_stages(network, made[name], plan.precision, quantization=plan)
    write_stages(network, made["fp32"], "fp32")
    return made


def kinds(path) -> Counter:
    return Counter(node.op_type for node in onnx.load(path).graph.node)


@pytest.mark.parametrize("stage", STAGES)
@pytest.mark.parametrize("name", ["gpu", "cpu", "dynamic"])
def test_files_are_valid_and_say_what_they_are(folders, name, stage):
    model = onnx.load(folders[name] / f"{stage}.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert {p.key: p.value for p in model.metadata_props}["precision"] == "int8"
    tower = stage in ("image", "text")
    expected = (19, 9) if tower and name == "gpu" else (17, 8)  # scales in half came with 19
    assert (model.opset_import[0].version, model.ir_version) == expected
    assert [o.domain for o in model.opset_import] == [""]  # nothing but standard operators


@pytest.mark.parametrize("stage, products", [("image", IMAGE_PRODUCTS), ("text", TEXT_PRODUCTS)])
def test_quantised_products_and_no_others(folders, stage, products):
    gpu, cpu, dynamic = (kinds(folders[name] / f"{stage}.onnx") for name in ("gpu", "cpu", "dynamic"))
    # an input each, and weights; on a CPU biases are integers
    assert (gpu["QuantizeLinear"], gpu["DequantizeLinear"]) == (products, 2 * products)
    assert (cpu["QuantizeLinear"], cpu["DequantizeLinear"]) == (products, 3 * products)
    assert (dynamic["DynamicQuantizeLinear"], dynamic["MatMulInteger"]) == (products, products)
    assert not dynamic["QuantizeLinear"] and not cpu["DynamicQuantizeLinear"]


@pytest.mark.parametrize("stage", ["visual", "cross"])
@pytest.mark.parametrize("name", ["gpu", "cpu", "dynamic"])
def test_decoders_have_none(folders, name, stage):
    found = kinds(folders[name] / f"{stage}.onnx")
    assert not any("Quantize" in kind or "Integer" in kind for kind in found)
    types = {t.data_type for t in onnx.load(folders[name] / f"{stage}.onnx").graph.initializer}
    assert (TensorProto.FLOAT16 in types) == (name == "gpu") and TensorProto.INT8 not in types


@pytest.mark.parametrize("target", ["gpu", "cpu", "dynamic"])
def test_kept_units_have_none(network, plans, target, tmp_path):
    units = units_of(network.config)
    assert units == ["image.0.attn", "image.0.mlp", "image.1.attn", "image.1.mlp", "text.0.attn", "text.0.mlp"]
    plan = plans[target].keeping(frozenset({"image.1.mlp", "text.0.attn"}))
    for stage in ("image", "text"):
        graph = stage_graph(network, stage, plan.precision, plan)
        quantised = {name for name, array in graph.weights.items() if array.dtype in (np.int8, np.uint8)}
        found = {unit_of(name) for name in quantised}
        assert found == {u for u in units if u.startswith(stage)} - plan.kept
    none = plan.keeping(frozenset(units))
    kept = stage_graph(network, "text", plan.precision, none)
    plain = stage_graph(network, "text", plan.precision)
    assert [n.op_type for n in kept.nodes] == [n.op_type for n in plain.nodes]
    assert all(
        np.array_equal(kept.weights[name], array) for name, array in plain.weights.items()
    )  # not smoothed either


@pytest.mark.parametrize("name", ["cpu", "dynamic"])
def test_onnx_runtime_computes_in_integers(folders, name, tmp_path):
    """Every product of a block is one integer product, none left in float: proj, and two of keys and values are."""
    found = Counter(optimised_kinds(folders[name] / "image.onnx", tmp_path))
    kind = {"cpu": "QGemm", "dynamic": "DynamicQuantizeMatMul"}[name]
    assert found[kind] == IMAGE_PRODUCTS and found["Gemm"] + found["FusedGemm"] == 3
    assert not found["DequantizeLinear"] and not found["MatMulInteger"]


def one_product(plan: Quantization, weight: np.ndarray, bias: np.ndarray, tmp_path):
    """A file with one quantised product, opened."""
    g = Graph("one", plan.precision, plan.opset)
    x = g.input("x", TensorProto.FLOAT, ("n", weight.shape[1]))
    y = g.float32(plan.linear(g, x, weight, bias, NAME))
    g.output(y, "y", TensorProto.FLOAT, ("n", weight.shape[0]))
    g.save(tmp_path / "one.onnx", {}, "")
    return session(tmp_path / "one.onnx")


@pytest.fixture
def arrays():
    random = np.random.default_rng(5)
    weight = (random.standard_normal((OUT, IN)) * np.exp(random.normal(0, 1, (OUT, 1)))).astype(np.float32)
    return random.standard_normal((ROWS, IN)).astype(np.float32) * 2, weight, random.standard_normal(OUT).astype("f")


@pytest.mark.parametrize("weights", sorted({"u8", HERE}))
def test_one_product_of_fixed_range_is_exactly_these_integers(arrays, weights, tmp_path):
    x, weight, bias = arrays
    range_ = Range(-1.5, 4.0)  # some are clipped
    plan = Quantization(ranges={NAME: range_}, weights=weights)
    got = one_product(plan, weight, bias, tmp_path).run(None, {"x": x})[0]
    # worked out from the definitions alone
    step, steps = np.float32(5.5 / 255), np.abs(weight).max(axis=1) / np.float32(127)
    zero = round(1.5 / (5.5 / 255))
    inputs = np.clip(np.rint(x / step) + zero, 0, 255).astype(np.int64) - zero
    integers = np.rint(weight / steps[:, None]).astype(np.int64)
    sums = inputs @ integers.T + np.rint(bias / (steps * step)).astype(np.int64)
    assert inputs.min() == -zero and inputs.max() == 255 - zero
    assert np.array_equal(np.rint(got / (steps * step)).astype(np.int64), sums)


@pytest.mark.parametrize("weights", sorted({"u8", HERE}))
def test_one_product_of_dynamic_range_is_exactly_these_integers(arrays, weights, tmp_path):
    x, weight, bias = arrays
    plan = Quantization("dynamic", ranges={NAME: Range(0, 0)}, weights=weights)
    got = one_product(plan, weight, bias, tmp_path).run(None, {"x": x})[0]
    step, steps = (x.max() - x.min()) / np.float32(255), np.abs(weight).max(axis=1) / np.float32(127)
    inputs = np.rint(x / step).astype(np.int64)
    zero = np.rint(-x.min() / step)
    inputs = np.clip(inputs + zero, 0, 255).astype(np.int64) - int(zero)
    sums = inputs @ np.rint(weight / steps[:, None]).astype(np.int64).T
    assert np.array_equal(np.rint((got - bias) / (steps * step)).astype(np.int64), sums)


def test_one_product_for_a_gpu_is_symmetric(arrays, tmp_path):
    x, weight, bias = arrays
    plan = Quantization(target="gpu", ranges={NAME: Range(-4.0, 4.0)})
    got = one_product(plan, weight, bias, tmp_path).run(None, {"x": x})[0]
    half = np.float16
    step, steps = half(4 / 127), np.abs(weight).max(axis=1) / np.float32(127)
    inputs = np.clip(np.rint(x.astype(half) / step), -128, 127).astype(np.int64)
    want = (inputs @ np.rint(weight / steps[:, None]).astype(np.int64).T) * (float(step) * steps) + bias
    assert np.abs(got - want).max() < 0.01 * np.abs(want).max()  # half's rounding, and a scale's
    model = onnx.load(tmp_path / "one.onnx").graph
    zeros = [numpy_helper.to_array(t) for t in model.initializer if t.name.endswith("_zero")]
    assert len(zeros) == 2 and all(z.dtype == np.int8 and not z.any() for z in zeros)  # all that TensorRT takes
    bias_type = next(t.data_type for t in model.initializer if t.name.endswith(".bias"))
    assert bias_type == TensorProto.FLOAT16


def test_a_bias_beside_weights_of_nothing_survives(tmp_path):
    weight, bias = np.zeros((3, IN), np.float32), np.array([5.0, -1e-3, 0.0], np.float32)
    weight[1] = 1e-12
    plan = Quantization(ranges={NAME: Range(-1.0, 1.0)}, weights=HERE)
    got = one_product(plan, weight, bias, tmp_path).run(None, {"x": np.ones((2, IN), np.float32)})[0]
    assert np.allclose(got, bias, rtol=1e-5)


def test_signed_and_unsigned_weights_are_the_same_numbers(arrays):
    _, weight, bias = arrays
    stored = {}
    for weights in ("s8", "u8"):
        g = Graph("one", "fp32")
        Quantization(ranges={NAME: Range(-1, 1)}, weights=weights).linear(g, "x", weight, bias, NAME)
        w, zero = (g.weights[f"{NAME}.{part}"] for part in ("weight", "weight_zero"))
        assert w.dtype == zero.dtype == {"s8": np.int8, "u8": np.uint8}[weights]
        stored[weights] = w.astype(int) - zero.astype(int)[:, None]
    assert np.array_equal(stored["s8"], stored["u8"])


@pytest.mark.parametrize("name", ["gpu", "cpu"])
@pytest.mark.parametrize("stage", ["image", "text"])
def test_stages_are_near_the_float32_ones_and_nearer_to_their_emulation(network, plans, folders, name, stage):
    random = np.random.default_rng(0)
    if stage == "image":
        feed = {"pixels": random.standard_normal((4, 3, 32, 64)).astype(np.float32)}
        inputs = torch.from_numpy(feed["pixels"])
    else:
        inputs = network.tokenizer(["word", "another", "", "x9"])
        feed = {"bpe": inputs}

    def run(folder) -> torch.Tensor:
        outputs = session(folder / f"{stage}.onnx").run(None, feed)
        return torch.cat([torch.from_numpy(y.astype(np.float32)).flatten() for y in outputs])

    exact, got = run(folders["fp32"]), run(folders[name])
    with torch.inference_mode(), Emulate(network, plans[name]):
        emulated = stage_outputs(network, stage, inputs)
    assert float((got - exact).norm() / exact.norm()) < 0.06
    assert float((got - exact).norm()) > 1e-4 * float(exact.norm())  # it did round
    # half's own rounding comes on top, and is not emulated
    share = {"cpu": 0.4, "gpu": 0.85}[name]
    assert float((got - emulated).norm()) < share * float((got - exact).norm())


def test_fixed_ranges_give_every_image_its_own_answer(folders):
    """Dynamic ones do not: what schemes.py weighs."""
    random = np.random.default_rng(1)
    pixels = random.standard_normal((4, 3, 32, 64)).astype(np.float32)
    pixels[3] *= 10
    changes = {}
    for name in ("cpu", "dynamic"):
        run = session(folders[name] / "image.onnx").run
        alone, among = (run(["visual_kv"], {"pixels": p})[0][0] for p in (pixels[:1], pixels))
        changes[name] = np.abs(alone - among).max() / np.abs(alone).max()
    assert changes["cpu"] < 1e-5 < 1e-3 < changes["dynamic"]


@pytest.mark.parametrize("strength", [0.25, 0.75])
def test_smoothing_changes_no_float32_answer(network, strength):
    """The folded weights in the torch network itself."""
    plan = plan_of(network, "cpu", strength)
    assert {p.rpartition(".")[2] for p in plan.folds} == {"in_proj", "c_fc"}
    state = {name: tensor.numpy() for name, tensor in network.state_dict().items()}
    folded = plan.folded(state)
    changed = {name for name in state if not np.array_equal(folded[name], state[name])}
    norms = {f"{name.rpartition('.attn')[0]}.ln_1" for name in plan.folds if "in_proj" in name}
    norms |= {f"{name.rpartition('.mlp')[0]}.ln_2" for name in plan.folds if "c_fc" in name}
    assert changed == {weight_of(p) for p in plan.folds} | {f"{n}.{part}" for n in norms for part in ("weight", "bias")}
    twin = type(network)(network.config)
    twin.load_state_dict({name: torch.from_numpy(array) for name, array in folded.items()})
    pixels = torch.randn(3, 3, 32, 64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        for tower, inputs in (("image", pixels), ("text", network.tokenizer(["smooth", "operator"]))):
            before, after = (stage_outputs(net, tower, inputs) for net in (network, twin.eval()))
            assert float((before - after).abs().max()) < 1e-4 * float(before.abs().max())
    kept = plan.keeping(frozenset(units_of(network.config)))
    assert all(np.array_equal(kept.folded(state)[name], state[name]) for name in state)


def test_smoothed_outliers_cost_less(network):
    """What SmoothQuant is for: one feature far above the others."""
    state = {k: v.clone() for k, v in network.state_dict().items()}
    for block in range(2):
        for norm in ("ln_1", "ln_2"):
            state[f"clip_model.visual.transformer.resblocks.{block}.{norm}.weight"][5] *= 60
    sick = type(network)(network.config)
    sick.load_state_dict(state)
    sick.eval().requires_grad_(False)
    pixels = torch.randn(4, 3, 32, 64, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        exact = stage_outputs(sick, "image", pixels)
    errors = {}
    for strength in (None, 0.5):
        with torch.inference_mode(), Emulate(sick, plan_of(sick, "cpu", strength)):
            errors[strength] = float((stage_outputs(sick, "image", pixels) - exact).norm())
    assert errors[0.5] < 0.7 * errors[None]


def test_scales_of_a_plan_are_those_in_the_file(network, plans, folders):
    graph = onnx.load(folders["cpu"] / "image.onnx").graph
    arrays = {t.name: numpy_helper.to_array(t) for t in graph.initializer}
    plan, state = plans["cpu"], {k: v.numpy() for k, v in network.state_dict().items()}
    for product in (p for unit in units_of(network.config) if unit.startswith("image") for p in products_of(unit)):
        place = activation_scale(plan.ranges[product], U8)
        assert arrays[f"{product}.input_scale"] == place.scale and arrays[f"{product}.input_zero"] == place.zero
        if product not in plan.folds and "in_proj" not in product:
            integers, scales = quantised_weights(state[weight_of(product)])
            assert np.array_equal(arrays[f"{product}.weight_scale"], scales)
            stored = arrays[f"{product}.weight"].astype(int) - arrays[f"{product}.weight_zero"].astype(int)[:, None]
            assert np.array_equal(stored, integers)
    assert replace(plan, kept=frozenset({"image.0.mlp"})).covers(NAME) is False
