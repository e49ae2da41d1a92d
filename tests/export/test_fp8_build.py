"""clip4str build --fp8: what the bundle says of itself, who can read it, and who is told at once that he cannot."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest
from int8_networks import noise

from clip4str.core.errors import BackendError, BundleError
from clip4str.export.build_engine import main
from clip4str.export.bundles import build_bundle
from clip4str.export.engines import EngineOptions, build_engines, check_precision, library
from clip4str.runtime import Recognizer
from clip4str.runtime.bundle import Bundle
from clip4str.runtime.manifest import parse_manifest


@pytest.fixture(scope="module")
def crops(tmp_path_factory):
    folder = tmp_path_factory.mktemp("crops")
    for i, sample in enumerate(noise(12)):
        sample.image.save(folder / f"{i}.png")
    return folder


@pytest.fixture(scope="module")
def built(golden_checkpoint, crops, tmp_path_factory):
    """The folder, the settings, and what was said."""
    settings, said = {"precision": "fp8", "calib_data": crops, "max_accuracy_drop": 100.0, "sample_folder": crops}, []
    folder = build_bundle(golden_checkpoint("tiny"), tmp_path_factory.mktemp("fp8") / "b", **settings, say=said.append)
    return folder, settings, said


def test_the_manifest_says_what_it_is(built):
    manifest = Bundle.open(built[0]).manifest
    how = manifest.quantization
    assert (manifest.precision, how["scheme"], how["target"]) == ("fp8", "qdq", "gpu")
    assert (how["weights"], how["activations"], how["rest"]) == ("e4m3", "e4m3", "fp16")
    assert how["least_compute_capability"] == "8.9"


def test_it_is_for_gpus_whatever_the_target(built, golden_checkpoint):
    folder, settings, _ = built
    said = []
    assert build_bundle(golden_checkpoint("tiny"), folder, **settings, for_gpu=True, say=said.append) == folder
    assert said == ["b is up to date: same checkpoint, same options, same versions (--force builds it again)"]


def test_onnx_runtime_reads_it(built, tiny_bundle, golden):
    """As float32 does, nearly: on the first stage, for these weights are random."""
    pixels = golden("tiny")["images"].astype(np.float32).transpose(0, 3, 1, 2) / 127.5 - 1
    got, exact = (
        Recognizer.load(f, "onnxruntime", threads=1).backend.image(pixels)[0] for f in (built[0], tiny_bundle)
    )
    assert got.dtype == np.float16
    assert 1e-3 < np.linalg.norm(got.astype("f") - exact) / np.linalg.norm(exact) < 0.15


def test_a_reader_that_knows_no_fp8_refuses_it(built, monkeypatch):
    from clip4str.runtime import manifest

    monkeypatch.setattr(manifest, "PRECISIONS", ("fp32", "fp16", "int8"))
    with pytest.raises(BundleError, match="unknown precision 'fp8'"):
        parse_manifest((built[0] / "manifest.json").read_bytes())


def test_a_gpu_without_fp8_is_refused_before_anything_is_built(golden_checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    arguments = ["--fp8", "--target", "tensorrt-rtx", "--compute-capability", "8.9,8.6"]
    assert main([str(golden_checkpoint("tiny")), *arguments]) == 2
    error = capsys.readouterr().err
    assert "fp8 is for GPUs of compute capability 8.9 and newer" in error and "not 8.6" in error
    assert error.count("\n") == 1 and not list(tmp_path.iterdir())


@pytest.mark.parametrize("here, fits", [("8.7", False), ("8.9", True), ("11.0", True)])
def test_so_is_the_gpu_of_this_machine(monkeypatch, here, fits):
    monkeypatch.setattr(library.cuda, "why_unusable", lambda: None)
    layer = SimpleNamespace(device=SimpleNamespace(compute_capability=here), close=lambda: None)
    monkeypatch.setattr(library.cuda, "open_cuda", lambda: layer)
    options = EngineOptions("tensorrt")
    check_precision("fp8", options, here=False)  # carried to another one
    check_precision("int8", options, here=True)
    if fits:
        check_precision("fp8", options, here=True)
    else:
        with pytest.raises(BackendError, match=rf"fp8 is for GPUs .*, not {here}; .*--int8 or --fp16"):
            check_precision("fp8", options, here=True)


def test_a_bundle_that_was_carried_to_such_a_gpu(built):
    """TensorRT's own words of it: 'Cannot compile for target(s) sm86 ... HW-specific datatypes'."""
    pytest.importorskip("tensorrt_rtx")
    options = EngineOptions("tensorrt-rtx", compute_capabilities=("8.6",))
    with pytest.raises(BackendError, match=r"^fp8 is for GPUs of compute capability 8\.9 and newer .*, not 8\.6"):
        build_engines(built[0], Bundle.open(built[0]).manifest, options)
    assert not list(built[0].glob("*.plan"))


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--fp8", "--int8"], "not allowed with"),
        (["--fp16", "--max-accuracy-drop", "1"], "--max-accuracy-drop is for --int8 and --fp8"),
        (["--fp16", "--calib-data", "."], "--calib-data is for --int8 and --fp8"),
    ],
)
def test_mistakes(golden_checkpoint, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main([str(golden_checkpoint("tiny")), *arguments]) == 2
    assert message in capsys.readouterr().err
