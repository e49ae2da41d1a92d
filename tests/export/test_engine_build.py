"""Engines by a real compiler: TensorRT-RTX builds without a GPU. What it fused, and in which types, is read off its log
and held against the ONNX files, for networks of the small size and of B/16, whose layers are all alike: four of twelve
here, all of them among the slow tests.

None of these engines can run here; what they compute is what ONNX Runtime computes of the same files.
"""

from __future__ import annotations

import re
import shutil
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

import onnx
import pytest
from onnx import numpy_helper

from clip4str.benchmarks.engine_sizes import write_bundle
from clip4str.benchmarks.random_weights import random_network
from clip4str.export.engines import EngineOptions, build_engines, engine_key
from clip4str.export.engines.build_log import Facts, facts_of
from clip4str.export.engines.shapes import input_shapes, output_shapes
from clip4str.model import Clip4Str
from clip4str.model.draft import DraftHead, frames_per_column
from clip4str.model.sizes import SIZES
from clip4str.runtime.bundle import EIGHT_BITS, STAGES, Bundle, describe_file, write_manifest
from clip4str.training.draft import with_head

pytest.importorskip("tensorrt_rtx")
OPTIONS = EngineOptions("tensorrt-rtx", max_batch=16, compute_capabilities=("8.6", "8.9"), verbose=True)
OPTIONS_OF = {"fp8": replace(OPTIONS, compute_capabilities=("8.9", "12.0"))}
TOWERS = ("image", "text")
FEW_LAYERS = {"image_layers": 4, "text_layers": 4, "vocabulary": 2562}
NETWORKS = {"small": SIZES["small"], "base16": replace(SIZES["base16"], **FEW_LAYERS), "whole base16": SIZES["base16"]}
KEPT = frozenset({"image.1.mlp", "text.0.attn"})


@cache
def network(name: str) -> Clip4Str:
    """Of random weights: what a compiler makes of a network depends on its shapes. No draft head."""
    return random_network(NETWORKS[name]).requires_grad_(False)


@dataclass
class Built:
    bundle: Bundle
    engines: dict
    log: dict[str, str]  # all that TensorRT said, by stage
    kept: frozenset[str]  # units of int8 and fp8 that stay in half precision

    def facts(self, stage: str) -> Facts:
        return facts_of(self.log[stage])

    def graph(self, stage: str) -> onnx.GraphProto:
        return onnx.load(self.bundle.path(stage), load_external_data=False).graph

    def nodes(self, stage: str, *kinds: str) -> set[str]:
        return {node.name for node in self.graph(stage).node if node.op_type in kinds}


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """built("small", "fp16") -> engines of that network, made once. B/16's take two gigabytes: none is left behind."""
    made: dict[tuple[str, str], Built] = {}

    def build(name: str, precision: str) -> Built:
        if (name, precision) not in made:
            folder = tmp_path_factory.mktemp("engines") / f"{name}-{precision}"
            kept = KEPT if precision in EIGHT_BITS else frozenset()
            bundle = write_bundle(folder, network(name), precision, kept)
            lines: list[str] = []
            log: dict[str, str] = {}

            def say(line: str) -> None:
                if line.partition(" ")[0] in STAGES:
                    log[line.partition(" ")[0]] = "\n".join(line.removeprefix("[V] ") for line in lines)
                    lines.clear()

            options = OPTIONS_OF.get(precision, OPTIONS)
            engines = build_engines(folder, bundle.manifest, options, say=say, detail=lines.append)
            made[name, precision] = Built(bundle, engines, log, kept)
        return made[name, precision]

    yield build
    network.cache_clear()
    for result in made.values():
        shutil.rmtree(result.bundle.folder)


@pytest.fixture(params=["small", "base16", pytest.param("whole base16", marks=pytest.mark.slow)])
def name(request) -> str:
    return request.param


def weights_bytes(path: Path) -> int:
    """Of all that an ONNX file stores."""
    return sum(numpy_helper.to_array(tensor).nbytes for tensor in onnx.load(path).graph.initializer)


def products(graph: onnx.GraphProto) -> tuple[set[str], set[str]]:
    """Names of the matrix products with 8-bit weights, and of those without."""
    packed = {node.output[0] for node in graph.node if node.op_type == "DequantizeLinear"}
    gemms = [node for node in graph.node if node.op_type == "Gemm"]
    eight = {node.name for node in gemms if packed.issuperset(node.input[:2])}
    return eight, {node.name for node in gemms} - eight


@pytest.mark.parametrize("precision", ["fp16", "int8", "fp8"])
def test_every_attention_is_one_kernel(built, name, precision):
    result, config = built(name, precision), network(name).config
    expected = {"image": config.image_layers, "text": config.text_layers, "visual": 2, "cross": 2}
    for stage in STAGES:
        # the last softmax of a decoder gives the probabilities
        softmaxes = {n.name for n in result.graph(stage).node if n.op_type == "Softmax" and "logits" not in n.input}
        facts = result.facts(stage)
        inside = [{n for n in layer.onnx if n in softmaxes} for layer in facts.attentions]
        assert len(softmaxes) == expected[stage] == len(inside)
        assert all(len(names) == 1 for names in inside) and set.union(*inside) == softmaxes
        types = {t.type for layer in facts.attentions for t in layer.inputs}
        assert types - {"Bool"} == {"Half"} and (stage not in TOWERS or "Bool" not in types)
        assert len(facts.softmaxes) == (0 if stage in TOWERS else 1)
        assert not facts.doubts(stage, result.bundle.manifest)


def test_half_engines_compute_in_half(built, name):
    result = built(name, "fp16")
    for stage in STAGES:
        facts = result.facts(stage)
        assert set(facts.products) == {"Half"}
        assert result.nodes(stage, "Gemm") <= facts.products_of("Half")


@pytest.mark.parametrize("precision, kind", [("int8", "Int8"), ("fp8", "FP8")])
def test_eight_bit_products_are_eight_bit_products(built, name, precision, kind):
    result = built(name, precision)
    for stage in TOWERS:
        facts = result.facts(stage)
        eight, half = products(result.graph(stage))
        layers = network(name).config.image_layers if stage == "image" else network(name).config.text_layers
        assert len(eight) >= 4 * (layers - 1) + 2 and half
        assert eight <= facts.products_of(kind) and not eight & facts.products_of("Half")
        assert half <= facts.products_of("Half") and not half & facts.products_of(kind)
        assert not facts.unpacked and set(facts.products) == {kind, "Half"}
    for stage in ("visual", "cross"):
        assert products(result.graph(stage))[0] == set() and set(result.facts(stage).products) == {"Half"}


@pytest.mark.parametrize("precision", EIGHT_BITS)
def test_units_that_were_kept_stay_half(built, name, precision):
    result = built(name, precision)
    for stage, unit, names in (("image", "resblocks.1", {"c_fc", "c_proj"}), ("text", "resblocks.0", {"out_proj"})):
        in_half = result.facts(stage).products_of("Half") & result.nodes(stage, "Gemm")
        found = [re.search(r"(resblocks\.\d+)/(\w+)$", node) for node in in_half]
        assert {match[1] for match in found if match} == {unit}
        assert names <= {match[2] for match in found if match}


@pytest.mark.parametrize("precision", ["fp16", "int8", "fp8"])
def test_nothing_is_merely_moved_or_cast_between_layers(built, name, precision):
    """But for pixels that come in as float32, and in 8 bits for the heads that an attention leaves side by side."""
    result, config = built(name, precision), network(name).config
    layers = {"image": config.image_layers, "text": config.text_layers}
    for stage in TOWERS:
        moves = result.facts(stage).moves
        casts = [layer for layer in moves if "Cast" in layer.fused]
        assert len(casts) == (1 if stage == "image" else 0)
        assert all("pixels" in [t.name for t in layer.inputs] for layer in casts)
        heads = [layer for layer in moves if layer not in casts and layer.inputs[0].type == "Int8"]
        assert len(heads) <= (layers[stage] if precision == "int8" else 0)
        assert len(moves) - len(casts) - len(heads) <= 1


def test_launches_stay_few(built, name):
    """What fusing is for. Counted, with a little room for another release of the compiler."""
    layers = network(name).config.image_layers
    assert built(name, "fp16").facts("image").launches <= 11 * layers + 8
    assert built(name, "int8").facts("image").launches <= 13 * layers + 8
    assert built(name, "fp8").facts("image").launches <= 10 * layers + 8
    for stage in ("visual", "cross"):
        assert built(name, "fp16").facts(stage).launches <= 24


def test_float32_is_float32_and_fuses_no_attention(built, name):
    """TensorRT has whole attentions in narrower types alone; each softmax is still one kernel."""
    result = built(name, "fp32")
    for stage in STAGES:
        facts = result.facts(stage)
        assert set(facts.products) == {"Float"} and not facts.attentions
        assert len(facts.softmaxes) == len(result.nodes(stage, "Softmax"))
        assert not facts.doubts(stage, result.bundle.manifest)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8", "fp8"])
def test_only_the_number_of_images_varies(built, name, precision):
    result, manifest = built(name, precision), built(name, precision).bundle.manifest
    narrow = "Float" if precision == "fp32" else "Half"
    types = {"pixels": "Float", "attend": "Bool", "tokens": "Int32", "bpe": "Int32", "ids": "Int32", "probs": "Float",
             "logits": "Float"}  # fmt: skip
    pattern = r"Name: (\w+), IOMode: (\w+), DataType: (\w+), Dimensions: \[([-\d,]+)\](.*)"
    for stage in STAGES:
        seen = {}
        for tensor, mode, kind, sizes, rest in re.findall(pattern, result.log[stage]):
            shape = tuple(int(size) for size in sizes.split(","))
            profile = [shape.split(",") for shape in re.findall(r"(?:Min|Opt|Max)Shape: \[([\d,]+)\]", rest)]
            assert shape[0] == -1 and kind == types.get(tensor, narrow)
            if mode == "Input":
                assert [sizes[0] for sizes in profile] == ["1", "8", "16"]
                assert all(tuple(map(int, sizes[1:])) == shape[1:] for sizes in profile)
            seen[mode, tensor] = shape[1:]
        inputs, outputs = input_shapes(manifest, stage), output_shapes(manifest, stage)
        assert seen == {("Input", k): v for k, v in inputs.items()} | {("Output", k): v for k, v in outputs.items()}


def test_what_the_manifest_gets(built):
    result = built("small", "fp16")
    engines, folder = result.engines, result.bundle.folder
    assert {k: engines[k] for k in ("target", "gpu", "compute_capabilities", "profile", "precision", "workspace")} == {
        "target": "tensorrt-rtx", "gpu": "", "compute_capabilities": ["8.6", "8.9"], "precision": "fp16",
        "profile": {"min": 1, "opt": 8, "max": 16}, "workspace": None,
    }  # fmt: skip
    import tensorrt_rtx

    assert engines["version"] == tensorrt_rtx.__version__
    assert engines["key"] == engine_key(result.bundle.manifest, OPTIONS)
    assert engines["parity"]["checked"] is False and engines["parity"]["why"]
    assert engines["layers"]["image"] == {"launches": 98, "attentions": 9, "products": {"Half": 38}, "unpacked": 0}
    for stage in STAGES:
        plan = folder / engines["files"][stage]
        assert (
            weights_bytes(result.bundle.path(stage))
            < plan.stat().st_size
            < 3e6 + 1.5 * weights_bytes(result.bundle.path(stage))
        )
    files = {**result.bundle.manifest.files, **{n: describe_file(folder / n) for n in engines["files"].values()}}
    write_manifest(folder, replace(result.bundle.manifest, files=files, engines=engines))
    assert Bundle.open(folder).engine("cross") == folder / "cross.plan"


def test_smaller_types_make_smaller_engines(built, name):
    sizes = {p: (built(name, p).bundle.folder / "image.plan").stat().st_size for p in ("fp32", "fp16", *EIGHT_BITS)}
    assert sizes["fp32"] > 1.6 * sizes["fp16"] and sizes["fp16"] > 1.01 * max(sizes[p] for p in EIGHT_BITS)


def test_the_key_covers_what_decides(built):
    manifest = built("small", "fp16").bundle.manifest
    key = engine_key(manifest, OPTIONS)
    for same in (replace(OPTIONS, verbose=False), replace(OPTIONS, compute_capabilities=("8.9", "8.6"))):
        assert engine_key(manifest, same) == key
    others = [
        engine_key(manifest, replace(OPTIONS, max_batch=32)), engine_key(manifest, replace(OPTIONS, min_batch=2)),
        engine_key(manifest, replace(OPTIONS, opt_batch=4)), engine_key(manifest, replace(OPTIONS, workspace=1 << 30)),
        engine_key(manifest, replace(OPTIONS, compute_capabilities=("8.6",))),
        engine_key(built("small", "fp32").bundle.manifest, OPTIONS),
    ]  # fmt: skip
    changed = {**manifest.files, "text.onnx": {**manifest.files["text.onnx"], "sha256": "0" * 64}}
    others.append(engine_key(replace(manifest, files=changed), OPTIONS))
    beside = {**manifest.files, "text.onnx.data": {"sha256": "1" * 64, "bytes": 1}}
    others.append(engine_key(replace(manifest, files=beside), OPTIONS))
    assert len({key, *others}) == 1 + len(others)
    card = {**manifest.files, "MODEL_CARD.md": {"sha256": "2" * 64, "bytes": 1}}
    assert engine_key(replace(manifest, files=card), OPTIONS) == key


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_an_image_engine_with_a_draft(built, tmp_path, precision):
    """The head is a product in half more, its ids an output of integers; whatever was fused still is."""
    model, plain = network("small"), built("small", precision)
    head = DraftHead(replace(model.config, draft_frames=frames_per_column(model.config.grid)))
    bundle = write_bundle(tmp_path / precision, with_head(model, head), precision, plain.kept)
    lines: list[str] = []
    engines = build_engines(bundle.folder, bundle.manifest, OPTIONS, detail=lines.append)
    assert any("Name: draft, IOMode: Output, DataType: Int32, Dimensions: [-1,32]" in line for line in lines)
    image, before = engines["layers"]["image"], plain.engines["layers"]["image"]
    assert image["attentions"] == before["attentions"] == model.config.image_layers
    assert image["products"]["Half"] == before["products"]["Half"] + 1
    assert before["launches"] < image["launches"] <= before["launches"] + 6
    assert [engines["layers"][stage] for stage in STAGES[1:]] == [
        plain.engines["layers"][stage] for stage in STAGES[1:]
    ]


def test_weights_that_lie_beside_the_file(tmp_path, monkeypatch):
    """Large networks keep them in NAME.onnx.data: the parser finds them."""
    from clip4str.export import graph

    monkeypatch.setattr(graph, "MAX_EMBEDDED_BYTES", 100_000)
    bundle = write_bundle(tmp_path / "beside", network("small"), "fp16")
    assert (tmp_path / "beside" / "image.onnx.data").is_file()
    engines = build_engines(bundle.folder, bundle.manifest, replace(OPTIONS, verbose=False))
    assert (bundle.folder / engines["files"]["image"]).stat().st_size > 5e6


def test_every_gpu_where_none_is_named(tmp_path):
    bundle = write_bundle(tmp_path / "all", network("small"), "fp16")
    said: list[str] = []
    engines = build_engines(bundle.folder, bundle.manifest, EngineOptions("tensorrt-rtx"), say=said.append)
    assert engines["compute_capabilities"] == [] and "minutes on a board" in said[0]
    assert [line.split()[0] for line in said[1:]] == list(STAGES)
    assert sorted(Path(p).name for p in bundle.folder.glob("*.plan")) == sorted(f"{stage}.plan" for stage in STAGES)
    assert not list(bundle.folder.glob(".*"))
