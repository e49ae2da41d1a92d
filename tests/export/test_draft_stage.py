"""Bundles of networks with a draft head: the image stage's third output, and what the others do not notice."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from int8_networks import plan_of, session
from onnx import TensorProto, numpy_helper

from clip4str.core.errors import BundleError
from clip4str.export.bundles import build_bundle
from clip4str.export.parity import measure
from clip4str.export.stage_files import stage_graph
from clip4str.model import save_checkpoint
from clip4str.model.clip4str import Clip4Str
from clip4str.runtime import Decoding, Recognizer
from clip4str.runtime.backends.ort import OrtBackend
from clip4str.runtime.bundle import Bundle, stage_shapes

GRIDS = {"tall": {"draft_frames": 8}, "one row": {"patch_size": (32, 4), "draft_frames": 2}}


@pytest.fixture(scope="module", params=list(GRIDS))
def network(request, random_model):
    return random_model(seed=9, **GRIDS[request.param])


@pytest.fixture(scope="module")
def pixels():
    return np.random.default_rng(4).standard_normal((12, 3, 32, 64)).astype(np.float32)


def build(network, folder, precision="fp32", **more):
    save_checkpoint(network, folder / "net.safetensors")
    return build_bundle(folder / "net.safetensors", folder / precision, precision=precision, min_agreement=0, **more)


@pytest.fixture(scope="module")
def bundle(network, tmp_path_factory):
    """Read only."""
    return Bundle.open(build(network, tmp_path_factory.mktemp("draft")))


@pytest.mark.parametrize("precision, least", [("fp32", 1.0), ("fp16", 0.97)])
def test_the_image_stage_gives_the_ids_of_all_frames(network, bundle, pixels, tmp_path, precision, least):
    if precision == "fp16":
        bundle = Bundle.open(build(network, tmp_path, precision))
    c = network.config
    frames = c.grid[1] * c.draft_frames
    assert stage_shapes(bundle.manifest)["image"]["draft"] == ("N", frames)
    output = onnx.load(bundle.path("image")).graph.output[2]
    assert output.name == "draft" and output.type.tensor_type.elem_type == TensorProto.INT32
    stages = OrtBackend(bundle, threads=1)
    for n in (1, 12):
        found = stages.image(pixels[:n])[2]
        with torch.inference_mode():
            memory = network.clip_model.visual(torch.from_numpy(pixels[:n]))
        # Column by column, from the rows of patches one below the other.
        grid = memory[:, 1:].reshape(n, *c.grid, c.d)
        columns = [torch.cat([grid[:, row, column] for row in range(c.grid[0])], 1) for column in range(c.grid[1])]
        wanted = torch.stack([network.draft_head.weight @ column.T for column in columns])  # [columns, frames x C, n]
        wanted = (wanted.permute(2, 0, 1) + network.draft_head.bias).reshape(n, frames, 95).argmax(-1)
        assert found.dtype == np.int32 and found.shape == (n, frames)
        assert (found == wanted.numpy()).mean() >= least
    assert len(np.unique(found)) > 5, "a head that says one thing would prove little"


def test_words_are_those_of_the_same_network_without(network, bundle, pixels, tmp_path):
    state = {k: v for k, v in network.state_dict().items() if not k.startswith("draft_head.")}
    plain = Clip4Str(replace(network.config, draft_frames=0))
    plain.load_state_dict(state)
    with_head, without = bundle.folder, build(plain.eval(), tmp_path)
    for stage in ("visual", "text", "cross"):
        files = [onnx.load(folder / f"{stage}.onnx") for folder in (with_head, without)]
        for file in files:
            file.graph.doc_string = ""  # counts parameters
        assert files[0] == files[1]
    words = {}
    for folder in (with_head, without):
        for how in (Decoding(), Decoding("nar"), Decoding(refine=0), Decoding(branch="visual"), Decoding(draft=False)):
            recognizer = Recognizer.load(folder, "onnxruntime", threads=1, decoding=how)
            words[folder, how] = [w.text for w in recognizer.read_pixels(pixels)]
            drafted = 12 if folder == with_head and how.decode == "ar" and how.draft else 0
            assert recognizer.stats.drafted == drafted
            assert words[folder, how] == words[with_head, how]
    assert len(set(words[without, Decoding()])) > 6


def test_a_network_without_a_head_gives_the_graph_it_always_gave(random_model):
    graph = stage_graph(random_model(seed=9), "image", "fp32")
    assert not any("draft" in name for node in graph.nodes for name in (node.name, *node.output))


def test_the_parity_table_counts_frames_that_agree(network, bundle, pixels):
    assert bundle.manifest.parity["draft_agreement"] == 1
    stages = OrtBackend(bundle, threads=1)
    image = stages.image
    stages.image = lambda pixels: (*image(pixels)[:2], 1 + image(pixels)[2])
    parity = measure(network, stages, pixels)
    assert parity.agreeing_frames == 0 and parity.frames == 12 * network.config.draft_positions
    assert f"draft   0 of {parity.frames} frames agree" in parity.table()
    parity.check(1.0)  # a wrong draft decides no word
    assert parity.stages["image"].relative < 1e-5


@pytest.mark.parametrize("target, kind", [("cpu", np.float32), ("gpu", np.float16)])
def test_int8_leaves_the_head_in_higher_precision(random_model, pixels, tmp_path, target, kind):
    network = random_model(seed=9, draft_frames=8)
    plan = plan_of(network, target, 0.5)
    stage_graph(network, "image", plan.precision, plan).save(tmp_path / "image.onnx", {}, "")
    weights = {t.name: numpy_helper.to_array(t) for t in onnx.load(tmp_path / "image.onnx").graph.initializer}
    assert any(w.dtype in (np.int8, np.uint8) and w.ndim == 2 for w in weights.values())
    assert weights["draft_head.weight"].dtype == kind
    frames = session(tmp_path / "image.onnx").run(["draft"], {"pixels": pixels})[0]
    with torch.inference_mode():
        wanted = network.image(torch.from_numpy(pixels))[2]
    assert (frames == wanted).mean() > 0.8, "the rounding of the tower before it is all that differs"


def test_tensors_for_the_torch_backend_and_manifests_that_know_of_no_head(network, pixels, tmp_path):
    folder = build(network, tmp_path, torch_weights=True)
    words = [w.text for w in Recognizer.load(folder, "onnxruntime", threads=1).read_pixels(pixels)]
    recognizer = Recognizer.load(folder, "torch", device="cpu")
    assert [w.text for w in recognizer.read_pixels(pixels)] == words and recognizer.stats.drafted == 12
    path = folder / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["config"]["draft_frames"]
    path.write_text(json.dumps(manifest))
    recognizer = Recognizer.load(folder, "onnxruntime", threads=1)
    assert [w.text for w in recognizer.read_pixels(pixels)] == words and recognizer.stats.drafted == 0
    with pytest.raises(BundleError, match=f"its draft_frames is {network.config.draft_frames}, the manifest means 0"):
        Recognizer.load(folder, "torch", device="cpu")


def test_an_image_stage_without_what_the_manifest_means(bundle):
    for frames, message in ((3, r"draft is \['N', "), (0, "")):
        wrong = replace(
            bundle, manifest=replace(bundle.manifest, config={**bundle.manifest.config, "draft_frames": frames})
        )
        if frames:
            with pytest.raises(BundleError, match=message):
                OrtBackend(wrong, threads=1)
        else:
            assert len(OrtBackend(wrong, threads=1).image(np.zeros((1, 3, 32, 64), np.float32))) == 2
