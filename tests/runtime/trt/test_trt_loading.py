"""What is looked at before TensorRT sees a file, and what happens with files that it should not have seen."""

from __future__ import annotations

import json
import sys
import warnings

import pytest
from fake_gpu import FakeGpu
from trt_rig import add_engines

from clip4str.core.errors import BackendError, BundleError, UsageError
from clip4str.runtime import Recognizer
from clip4str.runtime.backends.memory_limits import ladder
from clip4str.runtime.backends.trt.library import make_logger
from clip4str.runtime.bundle import Bundle

PROFILE = {"min": 1, "opt": 4, "max": 8}


def refused(r, folder, kind, message):
    with pytest.raises(kind, match=message) as caught:
        r.open(folder)
    assert "\n" not in str(caught.value)
    del caught
    r.check_empty()


@pytest.mark.parametrize(
    "version, built, compatible, fits",
    [
        ("10.3.0", "10.3.0.26", False, True),
        ("10.3.0.26", "10.3.0.26", False, True),
        ("10.3.0.30", "10.3.0.26", False, False),
        ("10.13.3.9", "10.3.0.26", False, False),
        ("10.13.3.9", "10.3.0.26", True, True),
        ("10.3.0", "10.13.3.9", True, False),
        ("11.4.0.106", "10.3.0.26", True, False),
        ("10.3.0", "", False, False),
        ("10.3.0", "ten\n", True, False),
    ],
)
def test_the_librarys_version(rig, engine_bundle, version, built, compatible, fits):
    r = rig(version=version)
    folder = engine_bundle(version=built, version_compatible=compatible, command="clip4str build x.ckpt --fp16")
    if not fits:
        built = built.strip()
        refused(
            r, folder, BackendError, rf"built by TensorRT {built}.*here is {version}; rebuild them: clip4str build "
        )
        assert not r.gpu.calls["deserialize"] and not r.gpu.calls["current"]
        return
    backend, _ = r.open(folder)
    assert r.trt.runtime.engine_host_code_allowed is compatible
    backend.close()


@pytest.mark.parametrize(
    "here, built, level, outcome",
    [
        ((8, 7), ["8.7"], "none", "fits"),
        ((8, 7), ["8.6"], "none", "refused"),
        ((9, 0), ["8.0"], "ampere_plus", "fits"),
        ((7, 5), ["8.0"], "ampere_plus", "refused"),
        ((8, 7), ["8.7"], "same_compute_capability", "fits"),
        ((8, 9), ["8.6"], "same_compute_capability", "refused"),
        ((8, 9), ["8.6", "8.9"], "none", "fits"),
        ((8, 9), [], "none", "fits"),
    ],
)
def test_the_gpus_architecture(rig, engine_bundle, here, built, level, outcome):
    r = rig(FakeGpu(capability=here))
    folder = engine_bundle(compute_capabilities=built, hardware_compatibility=level)
    if outcome == "refused":
        refused(
            r, folder, BackendError, rf"compute capability {built[0]}\), here is Orin \({here[0]}\.{here[1]}\); rebuild"
        )
        assert not r.gpu.calls["deserialize"]
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        r.open(folder)[0].close()


@pytest.mark.parametrize(
    "here, fits", [((8, 7), False), ((8, 6), False), ((8, 9), True), ((9, 0), True), ((11, 0), True)]
)
def test_fp8_engines_on_a_gpu_that_has_no_fp8(rig, engine_bundle, here, fits):
    """Whatever they say that they were built for."""
    r = rig(FakeGpu(capability=here))
    folder = engine_bundle(compute_capabilities=["8.0"], hardware_compatibility="ampere_plus")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["precision"] = "fp8"
    (folder / "manifest.json").write_text(json.dumps(manifest))
    if fits:
        r.open(folder)[0].close()
        return
    why = (
        rf"fp8 is for GPUs of compute capability 8\.9 and newer .*, not {here[0]}\.{here[1]}; build .* --int8 or --fp16"
    )
    refused(r, folder, BackendError, why)
    assert not r.gpu.calls["deserialize"]
    with pytest.warns(RuntimeWarning, match="not using tensorrt: .*fp8 is for GPUs"):
        assert type(Recognizer.load(folder).backend).__name__ == "OrtBackend"


def test_another_gpu_of_the_same_architecture_is_warned_of(rig, engine_bundle):
    r = rig(FakeGpu(name="NVIDIA A10"))
    with pytest.warns(RuntimeWarning, match="tuned for Orin .* here is NVIDIA A10; they may be slow"):
        r.open(engine_bundle())[0].close()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        r.open(engine_bundle(name="b", hardware_compatibility="same_compute_capability"))[0].close()


def test_the_command_that_rebuilds(rig, engine_bundle):
    r = rig(version="10.4.0")
    folder = engine_bundle(command="rm -rf /\n; clip4str build")
    refused(r, folder, BackendError, rf"rebuild them: clip4str build {folder} --target tensorrt --min-batch")


def test_files_that_are_no_engines(rig, engine_bundle):
    r, folder = rig(), engine_bundle()
    path = folder / "visual.plan"
    whole = path.read_bytes()

    def put(data, told=None):
        path.write_bytes(data)
        manifest = json.loads((folder / "manifest.json").read_text())
        import hashlib

        manifest["files"]["visual.plan"] = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
        (folder / "manifest.json").write_text(json.dumps(manifest))

    for data in (whole[:-5], b"", b"\0" * 100):
        put(data)
        refused(
            r, folder, BackendError, r"visual.plan: TensorRT cannot load it \(IRuntime::deserializeCudaEngine: magic t"
        )
    put(whole)
    r.gpu.fail("deserialize", 3, "CUDA_ERROR_INVALID_VALUE")
    with pytest.raises(BackendError):
        r.open(folder)
    r.open(folder)[0].close()
    r.check_empty()


def test_a_file_that_changed_after_it_was_checked(rig, engine_bundle):
    r, folder = rig(), engine_bundle()
    bundle, whole = Bundle.open(folder), (folder / "image.plan").read_bytes()
    (folder / "image.plan").write_bytes(whole + b"more")
    refused(r, bundle, BundleError, r"image.plan: \d+ bytes, the manifest says \d+")
    (folder / "image.plan").write_bytes(bytes(len(whole)))
    refused(r, bundle, BundleError, "image.plan: its sha256 is not the manifest's")
    (folder / "image.plan").unlink()
    refused(r, bundle, BundleError, "image.plan: missing")


@pytest.mark.parametrize(
    "stage, tensors, message",
    [
        ("image", {"pixels": {"shape": [-1, 3, 9, 9]}}, r"pixels's shape is \(-1, 3, 9, 9\), .* means \(-1, 3, 64"),
        ("image", {"pixels": {"dtype": "HALF"}}, "pixels's type is HALF, the manifest means FLOAT"),
        ("image", {"visual_kv": {"dtype": "HALF"}}, "visual_kv's type is HALF, the manifest means FLOAT"),
        ("visual", {"tokens": {"shape": [-1, -1]}}, r"tokens's shape is \(-1, -1\)"),
        ("visual", {"ids": {"format": "CHW4"}}, "ids's format is TensorFormat.CHW4"),
        ("visual", {"tokens": {"location": "HOST"}}, "tokens's memory is TensorLocation.HOST"),
        ("cross", {"text_kv": {"mode": "OUTPUT"}}, "text_kv's mode"),
        ("text", {"x": {"mode": "OUTPUT", "shape": [-1], "dtype": "INT8"}}, r"the set of its tensors is .*'x'"),
    ],
)  # fmt: skip
def test_tensors_that_the_manifest_does_not_mean(rig, engine_bundle, stage, tensors, message):
    r = rig()
    refused(r, engine_bundle(plans={stage: tensors}), BundleError, rf"{stage}.plan: {message}.*rebuild it: clip4str")


def test_a_profile_that_the_manifest_does_not_mean(rig, engine_bundle):
    r, folder = rig(), engine_bundle()
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["engines"]["profile"] = {"min": 1, "opt": 4, "max": 16}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    refused(r, folder, BundleError, r"profile is \[1, 4, 8\], the manifest means \[1, 4, 16\]")


def test_engines_of_mixed_precision_do_not_fit_together(rig, engine_bundle):
    r, folder = rig(), engine_bundle()
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest.update(precision="int8", quantization={})
    (folder / "manifest.json").write_text(json.dumps(manifest))
    add_engines(folder, plans={"visual": {"visual_kv": {"dtype": "HALF"}}})
    refused(r, folder, BundleError, "is float32 but .* is float16; rebuild its engines")


def test_no_library(rig, engine_bundle, monkeypatch, tiny_bundle):
    r, folder = rig(), engine_bundle()
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    refused(r, folder, BackendError, "TensorRT cannot be imported .*JetPack.*pip install tensorrt")
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    other = engine_bundle(name="rtx", target="tensorrt-rtx")
    refused(r, other, BackendError, "TensorRT-RTX cannot be imported .*pip install tensorrt-rtx")
    refused(r, engine_bundle(name="odd", target="openvino"), BackendError, "engines for 'openvino'")
    with pytest.warns(RuntimeWarning, match="not using tensorrt: TensorRT cannot be imported"):
        recognizer = Recognizer.load(folder)
    assert type(recognizer.backend).__name__ == "OrtBackend"


@pytest.mark.parametrize(
    ("gpu", "version", "why"),
    [((8, 7), "10.4.0", "built by TensorRT"), ((9, 0), "10.3.0.26", "built for .*compute capability 8.7")],
)
def test_auto_reads_on_with_engines_of_another_version_or_gpu(rig, engine_bundle, gpu, version, why):
    rig(FakeGpu(capability=gpu), version=version)
    folder = engine_bundle(compute_capabilities=["8.7"])
    with pytest.warns(RuntimeWarning, match=f"not using tensorrt: .*{why}.*rebuild them"):
        recognizer = Recognizer.load(folder)
    assert type(recognizer.backend).__name__ == "OrtBackend"


def test_options_of_torch_for_a_bundle_of_engines(engine_bundle):
    folder = engine_bundle()
    lacks = f"{folder} has engines, which are as they were built, and no weights for torch"
    with pytest.raises(UsageError, match=f"^dtype: {lacks}: clip4str build CHECKPOINT --torch; openvino"):
        Recognizer.load(folder, dtype="float16")
    with pytest.raises(UsageError, match=f"^device, passes: {lacks}: clip4str build CHECKPOINT --torch; on ONNX"):
        Recognizer.load(folder, device="cuda", passes=(3, 2))


@pytest.mark.parametrize("backend", ["auto", "tensorrt"])
def test_a_misspelt_switch_is_an_error_before_the_gpu_is_opened(rig, engine_bundle, monkeypatch, backend):
    """The C library, which reads the variable by itself, passes over it."""
    r, folder = rig(), engine_bundle()
    monkeypatch.setenv("CLIP4STR_GPU_OPTIONS", "dependant_launch")
    with pytest.raises(UsageError, match=r"^CLIP4STR_GPU_OPTIONS: 'dependant_launch' is none of dependent_launch, "):
        Recognizer.load(folder, backend)
    assert not r.gpu.calls
    monkeypatch.setenv("CLIP4STR_GPU_OPTIONS", "dependent_launch,-split_k")
    r.open(folder)[0].close()


def test_the_logger_keeps_what_matters(rig):
    trt = rig().trt
    logger, severity = make_logger(trt), trt.ILogger.Severity
    logger.log(severity.ERROR, "old")
    mark = logger.mark()
    assert logger.since(mark) == "it does not say why"
    logger.log(severity.ERROR, "the error\nand more")
    logger.log(severity.WARNING, "a warning")
    logger.log(severity.INFO, "chatter")
    assert logger.since(mark) == "the error"
    for i in range(1000):
        logger.log(severity.WARNING, f"warning {i}")
    assert logger.since(mark).startswith("warning 9")


@pytest.mark.parametrize(
    "largest, least, buckets",
    [(1, 1, [1]), (8, 1, [1, 2, 4, 8]), (12, 1, [1, 2, 4, 8, 12]), (6, 2, [2, 4, 6]), (3, 4, [4]), (9, 5, [5, 8, 9])],
)  # fmt: skip
def test_buckets(largest, least, buckets):
    assert ladder(largest, least) == buckets
