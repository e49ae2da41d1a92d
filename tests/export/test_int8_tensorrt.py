"""What a real TensorRT compiler makes of the quantised stages. It needs no GPU."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from int8_networks import plan_of
from onnx import TensorProto
from rtx_building import rtx_build

from clip4str.export.engines.build_log import facts_of
from clip4str.export.graph import Graph
from clip4str.export.quantization.arithmetic import Range
from clip4str.export.quantization.plan import Quantization, products_of
from clip4str.export.stage_files import write_stages

NAME = products_of("image.0.attn")[0]  # queries, keys and values


@pytest.fixture(scope="module")
def network(random_model):
    return random_model(seed=3)


@pytest.mark.parametrize("capability", ["SM86", "SM89", "SM120"])
@pytest.mark.parametrize("stage, products", [("image", 8), ("text", 4)])
def test_tensorrt_makes_integer_products_of_them(network, tmp_path, stage, products, capability):
    """A real compiler, without a GPU: every product of the blocks, queries, keys and values among them as one."""
    trt = pytest.importorskip("tensorrt_rtx")
    plan = plan_of(network, "gpu", 0.5)
    write_stages(network, tmp_path, "fp16", quantization=plan)
    facts = facts_of("\n".join(rtx_build(trt, tmp_path / f"{stage}.onnx", capability)[1]))
    assert facts.products["Int8"] == products and "other" not in facts.products and not facts.unpacked


@pytest.mark.parametrize("precision, most", [("int8", 127), ("fp8", 448)])
@pytest.mark.parametrize("capability", ["SM89", "SM120"])
def test_tensorrt_scales_within_the_product(tmp_path, precision, most, capability):
    """Both scales are one number of the product, whose sums are wide. Unscaled sums would be infinite in its
    half-precision result, which no test without a GPU would see: 448 x 448 is too much already, so is 5 x 127 x 127."""
    trt = pytest.importorskip("tensorrt_rtx")
    random, width = np.random.default_rng(5), 768
    weight = (0.05 * random.standard_normal((24, width)) * np.exp(random.normal(0, 1, (24, 1)))).astype("f")
    plan = Quantization(target="gpu", weights="e4m3" if precision == "fp8" else "s8", ranges={NAME: Range(-40.0, 30.0)})
    g = Graph("one", plan.precision, plan.opset)
    x = g.input("x", TensorProto.FLOAT, ("n", width))
    y = g.float32(plan.linear(g, x, weight, random.standard_normal(24).astype("f"), NAME))
    g.output(y, "y", TensorProto.FLOAT, ("n", 24))
    g.save(tmp_path / "one.onnx", {}, "")
    engine, lines = rtx_build(trt, tmp_path / "one.onnx", capability)
    (product,) = [layer for layer in facts_of("\n".join(lines)).layers if layer.is_product]
    assert product.product_type == {"int8": "Int8", "fp8": "FP8"}[precision] and product.outputs[0].type == "Half"
    both = float(g.weights[f"{NAME}.input_scale"]) * float(g.weights[f"{NAME}.weight_scale"])
    assert struct.pack("<f", both) in engine
    assert 5 * most * most > 65504 > both * most * most * 16
