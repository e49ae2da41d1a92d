"""How near float16's end a network comes: found block by block, said, and refused where it is passed."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from clip4str.core.errors import ParityError
from clip4str.export.activations import Watched, check_half
from clip4str.export.bundles import build_bundle
from clip4str.runtime.bundle import Bundle

BLOCK = "clip_model.visual.transformer.resblocks.0"


def test_the_largest_number_of_each_block(random_model):
    """Against hooks on the modules, which see fewer results: what they see is never more, and for the last result of a
    block, which is what grows, the same."""
    model, seen = random_model(seed=5, image_layers=3, text_layers=2), {}

    def remember(name):
        def hook(_module, _given, out):
            seen[name] = max(seen.get(name, 0.0), float(out.abs().max()))

        return hook

    for stage, tower in (("image", model.clip_model.visual.transformer), ("text", model.clip_model.transformer)):
        for number, block in enumerate(tower.resblocks):
            block.register_forward_hook(remember(f"{stage}.block {number}"))
            block.mlp.c_fc.register_forward_hook(remember(f"{stage}.block {number}"))
    watched = Watched(model)
    with torch.inference_mode():
        visual_kv, cross_kv = watched.image(torch.randn(2, 3, *model.config.image_size))
        watched.text(np.ones((2, 16), np.int32))
    assert set(watched.largest) == {*seen, "image", "text"} and len(seen) == 5
    assert all(watched.largest[name] >= value for name, value in seen.items())
    assert watched.largest["image"] >= float(max(visual_kv.abs().max(), cross_kv.abs().max()))


def test_a_block_that_grows_is_named(random_model):
    model = random_model(seed=5, image_layers=3)
    with torch.no_grad():
        model.clip_model.visual.transformer.resblocks[1].mlp.c_fc.bias[7] = 21_000.0
    watched = Watched(model)
    with torch.inference_mode():
        watched.image(torch.randn(2, 3, *model.config.image_size))
    place = max(watched.largest, key=watched.largest.get)
    assert place == "image.block 1" and 20_900 < watched.largest[place] < 21_100


@pytest.mark.parametrize(
    ("largest", "half", "said"),
    [
        (16_000, True, None),
        (17_000, True, "warning: text reaches 17,000, float16 ends at 65,504: images unlike the samples may overflow; "
         "build without --fp16, or read with dtype='bfloat16' on torch"),
        (17_000, False, "warning: text reaches 17,000, float16 ends at 65,504: images unlike the samples may overflow; "
         "read with dtype='bfloat16' on torch"),
        (80_000, False, "warning: text reaches 80,000, float16 ends at 65,504: overflows; read with dtype='bfloat16' "
         "on torch"),
    ],
)  # fmt: skip
def test_what_is_said(largest, half, said):
    lines = []
    check_half({"image": 3.0, "text": float(largest)}, half, lines.append)
    assert lines == ([] if said is None else [said])


@pytest.mark.parametrize("largest", [65_505.0, float("inf")])
def test_what_is_refused(largest):
    with pytest.raises(ParityError, match=r"cross reaches .*, float16 ends at 65,504: build for float32"):
        check_half({"image": 3.0, "cross": largest}, True, lambda _: None)


@pytest.fixture
def grown(golden_checkpoint, tmp_path):
    """grown(bias) -> the tiny network with one feature of the residual stream raised twice by so much"""

    def make(bias):
        arrays = load_file(golden_checkpoint("tiny"))
        for name in ("attn.out_proj.bias", "mlp.c_proj.bias"):
            arrays[f"{BLOCK}.{name}"][3] = bias
        path = tmp_path / "grown.safetensors"
        save_file(arrays, path)
        return path

    return make


def test_a_build_for_half_precision_says_how_near_it_is(grown, few_crops, tmp_path):
    said = []
    folder = build_bundle(grown(10_000.0), tmp_path / "near", precision="fp16", min_agreement=0, say=said.append,
                          sample_folder=few_crops)  # fmt: skip
    assert any(line.startswith("warning: image.block ") and "may overflow" in line for line in said), said
    activations = Bundle.open(folder).manifest.parity["activations"]
    assert 19_000 < activations["image.block 0"] < 21_000 and activations["visual"] > 0


@pytest.mark.parametrize("precision", ["fp16", "int8", "fp8"])
def test_a_build_for_half_precision_that_overflows_is_refused(grown, few_crops, tmp_path, precision):
    """Neither bias overflows by itself, and ONNX Runtime on a CPU computes in float32. What is rounded to 8 bits after
    it has overflown is a number again, so no reader could tell."""
    how = {} if precision == "fp16" else {"for_gpu": True, "calib_data": few_crops, "max_accuracy_drop": 100.0}
    with pytest.raises(ParityError, match=r"image\.block \d reaches 8\d,\d+, float16 ends"):
        build_bundle(grown(40_000.0), tmp_path / "over", precision=precision, min_agreement=0,
                     sample_folder=few_crops, **how)  # fmt: skip
    assert not (tmp_path / "over").exists()
