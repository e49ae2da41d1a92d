"""What a real TensorRT compiler makes of a single file. It needs no GPU."""

from __future__ import annotations

import pytest
from rtx_building import rtx_build

from clip4str.export.bundles import build_bundle
from clip4str.export.engines.build_log import facts_of
from clip4str.export.single_file.write import Options, write_graph
from clip4str.model import save_checkpoint
from clip4str.runtime.bundle import Bundle

MOVES = {"Cast", "Conc", "Move", "Repl", "Resh", "Slic", "Tran"}


@pytest.mark.slow
@pytest.mark.parametrize("options", [Options(passes=(3, 2), uint8=True), Options(static=True)], ids=["fixed", "static"])
def test_tensorrt_builds_both_forms(random_model, few_crops, tmp_path, options):
    trt = pytest.importorskip("tensorrt_rtx")
    save_checkpoint(random_model(seed=3), tmp_path / "net.safetensors")
    how = {"precision": "fp16", "min_agreement": 0, "sample_folder": few_crops}
    folder = build_bundle(tmp_path / "net.safetensors", tmp_path / "b", **how)
    write_graph(Bundle.open(folder), tmp_path / "word.onnx", options)
    _, layers = rtx_build(trt, tmp_path / "word.onnx", "SM89")
    facts = facts_of("\n".join(layers))
    assert sum("mha" in layer.name for layer in facts.layers) == 2  # the image tower's two blocks
    assert set(facts.products) == {"Half"}
    casts = [layer for layer in facts.layers if layer.fused and "Cast" in layer.fused and set(layer.fused) <= MOVES]
    # pixels come as float32, and a loop's flags go through the host: nothing is cast between products
    assert len(casts) <= (2 if options.static else 0), [layer.name for layer in casts]
