"""Float32 stages that read their weights from float16 tensors: the very answers, nothing stored twice, and the packaged
network, which is such a bundle."""

from __future__ import annotations

import json

import numpy as np
import onnx
import pytest
import torch
from safetensors import safe_open

from clip4str.core.errors import CheckpointError, UsageError
from clip4str.core.packaged import PACKAGED
from clip4str.core.safetensors_metadata import read_metadata, write_metadata
from clip4str.export.bundles import build_bundle, check_parity
from clip4str.export.parity_images import sample_images
from clip4str.export.ship import main as ship
from clip4str.model.checkpoint import BUNDLED, load_checkpoint, save_checkpoint, write_temperature
from clip4str.runtime import Recognizer
from clip4str.runtime.bundle import STAGES, Bundle
from clip4str.runtime.images import prepare


@pytest.fixture(scope="module")
def checkpoint(random_model, tmp_path_factory):
    path = tmp_path_factory.mktemp("half") / "net.safetensors"
    save_checkpoint(random_model(seed=3, draft_frames=8), path, torch.float16)
    return path


@pytest.fixture(scope="module")
def both(checkpoint, few_crops, tmp_path_factory):
    """(a float32 bundle, the same network with half storage)"""
    folder = tmp_path_factory.mktemp("both")
    how = {"min_agreement": 0, "sample_folder": few_crops}
    return [build_bundle(checkpoint, folder / str(half), half_storage=half, **how) for half in (False, True)]


def test_the_same_answers_to_the_last_bit(both):
    pixels = np.random.default_rng(0).standard_normal((4, 3, 32, 64)).astype(np.float32)
    plain, half = (Recognizer.load(folder, "onnxruntime", threads=1).reading(pixels) for folder in both)
    assert np.array_equal(plain.logits, half.logits) and np.array_equal(plain.confidence, half.confidence)
    assert np.ptp(plain.logits) > 1


def test_no_weight_of_the_network_is_stored_twice(both):
    """What stages keep inside is what the file does not hold: tables, sums, what is small."""
    weights = (both[1] / "weights.safetensors").read_bytes()
    kept = 0
    for stage in STAGES:
        for tensor in onnx.load(both[1] / f"{stage}.onnx", load_external_data=False).graph.initializer:
            if tensor.data_location == onnx.TensorProto.EXTERNAL:
                assert tensor.external_data[0].value == "weights.safetensors"
                continue
            array = onnx.numpy_helper.to_array(tensor)
            if array.dtype == np.float32 and array.nbytes >= 1024:
                kept += 1
                assert array.astype(np.float16).tobytes() not in weights, tensor.name
    assert kept, "the tables, for one"


def test_what_it_cannot_be_made_of(random_model, checkpoint, tmp_path):
    save_checkpoint(random_model(), tmp_path / "single.safetensors")
    with pytest.raises(CheckpointError, match="not all float16"):
        build_bundle(tmp_path / "single.safetensors", tmp_path / "b", half_storage=True)
    with pytest.raises(UsageError, match="half storage is of fp32"):
        build_bundle(checkpoint, tmp_path / "b", precision="fp16", half_storage=True)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_shipping_keeps_what_the_file_says_of_the_network(random_model, tmp_path, dtype, capsys, monkeypatch):
    monkeypatch.setattr("clip4str.export.bundles.MIN_AGREEMENT", 0)  # random weights
    source = tmp_path / "trained.safetensors"
    save_checkpoint(random_model(seed=3, draft_frames=8), source, dtype)
    write_temperature(source, 1.5)
    write_metadata(source, source, {"words": "123"})
    assert ship([str(source), "--output", str(tmp_path / "net")]) == 0
    bundle = Bundle.open(tmp_path / "net")
    weights = tmp_path / "net" / "weights.safetensors"
    assert (bundle.manifest.temperature, bundle.manifest.config["draft_frames"]) == (1.5, 8)
    assert read_metadata(weights)["words"] == "123" and load_checkpoint(weights).config.temperature == 1.5
    assert json.loads(read_metadata(weights)["clip4str"])["draft_frames"] == 8
    with safe_open(weights, "np") as file:
        assert {file.get_slice(key).get_dtype() for key in file.keys()} == {"F16"}  # noqa: SIM118
    assert (weights.read_bytes() == source.read_bytes()) == (dtype == torch.float16)


def test_the_packaged_network_reads_as_its_weights_do():
    parity = check_parity(load_checkpoint(BUNDLED), PACKAGED, prepare(sample_images()[:8], (32, 128), "half"))
    assert parity.agreement == 1 and parity.max_logits < 1e-4
    assert Bundle.open(PACKAGED, verify=True).manifest.image_size == (32, 128)
