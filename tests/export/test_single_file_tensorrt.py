"""What a real TensorRT compiler makes of a single file. It needs no GPU."""

from __future__ import annotations

import pytest
from rtx_building import rtx_build

from clip4str.export.bundles import build_bundle
from clip4str.export.single_file.write import Options, write_graph
from clip4str.model import save_checkpoint
from clip4str.runtime.bundle import Bundle


@pytest.mark.slow
@pytest.mark.parametrize("options", [Options(passes=(3, 2), uint8=True), Options(static=True)], ids=["fixed", "static"])
def test_tensorrt_builds_both_forms(random_model, few_crops, tmp_path, options):
    trt = pytest.importorskip("tensorrt_rtx")
    save_checkpoint(random_model(seed=3), tmp_path / "net.safetensors")
    how = {"precision": "fp16", "min_agreement": 0, "sample_folder": few_crops}
    folder = build_bundle(tmp_path / "net.safetensors", tmp_path / "b", **how)
    write_graph(Bundle.open(folder), tmp_path / "word.onnx", options)
    _, layers = rtx_build(trt, tmp_path / "word.onnx", "SM89")
    attentions = [line for line in layers if "mha" in line]
    # two blocks of the image tower, one of the text tower for each caption, memory attention in every pass
    assert len(attentions) >= 2
