"""Recognizer over the torch backend: golden words, bundles with weights, checkpoints, precisions, commands."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image
from torch_networks import CPU

from clip4str.core.cli import main
from clip4str.core.driver import PredictAndRefine
from clip4str.core.masks import Rule
from clip4str.export.bundles import build_bundle
from clip4str.export.parity_images import sample_images
from clip4str.kernels.shared.launch import check_capability
from clip4str.model import load_checkpoint
from clip4str.model.checkpoint import BUNDLED
from clip4str.runtime import (
    BackendError,
    BundleError,
    CharsetError,
    CheckpointError,
    Clip4StrError,
    Decoding,
    Recognizer,
    UsageError,
)
from clip4str.runtime.backends.pytorch import cpu_stages
from clip4str.runtime.backends.pytorch.device import choose_device
from clip4str.runtime.backends.pytorch.stages import TorchStages
from clip4str.runtime.backends.pytorch.weights import pack, source_of_model
from clip4str.runtime.bundle import Bundle, describe_file


@pytest.fixture(scope="module")
def bundle(golden_checkpoint, few_crops, tmp_path_factory):
    """The golden tiny network with weights. Read only."""
    folder = tmp_path_factory.mktemp("torch") / "tiny-fp32"
    how = {"min_agreement": 0, "torch_weights": True, "sample_folder": few_crops}
    return build_bundle(golden_checkpoint("tiny"), folder, **how)


@pytest.fixture(scope="module")
def recognizer(golden_checkpoint):
    return Recognizer.load(golden_checkpoint("tiny"))


@pytest.mark.parametrize("name", ["tiny", "tiny-charset94", pytest.param("base16", marks=pytest.mark.slow)])
def test_reads_the_published_words(name, golden, golden_checkpoint):
    want = golden(name)
    recognizer = Recognizer.load(golden_checkpoint(name), "torch", charset_test=str(want["charset_test"]))
    words = recognizer.read(list(want["images"]))
    assert [w.text for w in words] == want["text"].tolist()
    np.testing.assert_allclose([w.confidence for w in words], want["confidence"], rtol=1e-2, atol=1e-6)
    assert recognizer.backend.device == CPU and recognizer.backend.dtype == torch.float32


@pytest.mark.parametrize("name", ["tiny", pytest.param("base16", marks=pytest.mark.slow)])
def test_stages_give_the_published_logits(name, golden, golden_checkpoint):
    want, model = golden(name), load_checkpoint(golden_checkpoint(name))
    stages = TorchStages(pack(source_of_model(model, name), torch.float32, CPU))
    pixels = (np.float32(1 / 127.5) * want["images"] - 1).transpose(0, 3, 1, 2)
    reading = PredictAndRefine(model.charset, model.tokenizer)(stages, pixels, full_logits=True)
    np.testing.assert_allclose(reading.logits, want["logits"], atol=1e-3)


def test_a_bundle_with_weights_reads_like_its_checkpoint(bundle, recognizer, golden):
    images = list(golden("tiny")["images"])
    manifest = Bundle.open(bundle).manifest
    assert manifest.stages["weights"] == "weights.safetensors" and manifest.parity["torch"]["agreement"] == 1
    assert manifest.parity["torch"]["stages"]["cross"]["max_abs"] < 1e-3
    torch_words = Recognizer.load(bundle, "torch").read(images)
    assert torch_words == recognizer.read(images)
    assert [w.text for w in Recognizer.load(bundle, "onnxruntime", threads=1).read(images)] == [
        w.text for w in torch_words
    ]
    model = load_checkpoint(bundle / "weights.safetensors")
    assert model.config.d == 64, "a bundle's weights are a checkpoint too"


def test_half_precision_bundles_have_half_the_weights(golden_checkpoint, bundle, few_crops, tmp_path, golden):
    how = {"precision": "fp16", "min_agreement": 0, "torch_weights": True, "sample_folder": few_crops}
    half = build_bundle(golden_checkpoint("tiny"), tmp_path / "half", **how)
    sizes = [(folder / "weights.safetensors").stat().st_size for folder in (half, bundle)]
    assert sizes[0] < 0.51 * sizes[1]
    words = Recognizer.load(half, "torch").read(list(golden("tiny")["images"]))
    assert np.mean([w.text == text for w, text in zip(words, golden("tiny")["text"])]) > 0.8, "random weights"


@pytest.mark.parametrize(("dtype", "least"), [("float32", 1.0), ("float16", 0.995), ("bfloat16", 0.96)])
def test_words_of_the_bundled_network_in_every_precision(dtype, least):
    """The share of all 935 words of SVT and CUTE80: float32 100 %, float16 99.6 %, bfloat16 98.0 %."""
    images, model = sample_images(), load_checkpoint(BUNDLED)
    recognizer = Recognizer.load(BUNDLED, dtype=dtype)
    pixels = recognizer.prepare(images)
    want = [model.charset.decode(ids) for ids in model.read(torch.from_numpy(pixels)).ids]
    got = [word.text for word in recognizer.read_pixels(pixels)]
    assert sum(a == b for a, b in zip(want, got)) >= least * len(want)


def test_the_visual_branch_alone_needs_no_text_tower(bundle, golden):
    want = golden("tiny")
    visual = Recognizer.load(bundle, "torch", decoding=Decoding(branch="visual"))
    assert [w.text for w in visual.read(list(want["images"]))] == want["visual_refined"].tolist()
    weights = visual.backend.weights
    assert weights.text is None and weights.cross is None
    assert len(weights.image.key_value.weight) == 2 * weights.config.d
    with pytest.raises(UsageError, match="no text tower"):
        visual.backend.text(np.zeros((1, 16), np.int32))


def test_auto_takes_torch_only_where_it_must(bundle, tiny_bundle, golden_checkpoint):
    assert type(Recognizer.load(bundle, threads=1).backend).__name__ == "OrtBackend", "there is no GPU here"
    assert type(Recognizer.load(golden_checkpoint("tiny")).backend).__name__ == "TorchBackend"
    assert type(Recognizer.load(bundle, dtype="float16").backend).__name__ == "TorchBackend", "onnxruntime has no dtype"
    code = (
        "import sys\nfrom clip4str.runtime import Recognizer\n"
        f"Recognizer.load({str(tiny_bundle)!r}, threads=1)\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_what_cannot_be_loaded(bundle, tiny_bundle, golden_checkpoint, tmp_path):
    checkpoint = golden_checkpoint("tiny")
    foreign = tmp_path / "notes.pt"
    foreign.write_text("no weights")
    for error, message, arguments, options in [
        (BackendError, r"no weights for torch; rebuild it with: clip4str build --torch", (tiny_bundle, "torch"), {}),
        (BackendError, "runs bundles, not checkpoints", (checkpoint, "onnxruntime"), {}),
        (BackendError, "unknown backend 'tflite'", (checkpoint, "tflite"), {}),
        (BackendError, "torch cannot use a GPU here", (checkpoint, "torch"), {"device": "cuda"}),
        (BackendError, "unknown device 'tpu9'", (checkpoint,), {"device": "tpu9"}),
        (BackendError, "not on mps", (checkpoint,), {"device": "mps"}),
        (UsageError, "dtype is float16", (checkpoint,), {"dtype": "int8"}),
        (UsageError, "passes are two numbers", (checkpoint,), {"passes": (3,)}),
        (UsageError, "passes are two numbers", (checkpoint,), {"passes": 5}),
        (UsageError, "passes are 2 to 26 visual", (checkpoint,), {"passes": (1, 2)}),
        (UsageError, "passes are 2 to 26 visual", (bundle, "torch"), {"passes": (3, 27)}),
        (UsageError, "providers are ONNX Runtime's", (checkpoint,), {"providers": ["CPU"]}),
        (UsageError, "the GPU backends'", (bundle, "onnxruntime"), {"device": "cpu"}),
        (UsageError, "graphs: .* has neither engines nor weights for torch", (tiny_bundle,), {"graphs": False}),
        (UsageError, "batch size must be 1 or more", (checkpoint,), {"batch_size": 0}),
        (UsageError, "batch size must be 1 or more, not 2.5", (checkpoint,), {"batch_size": 2.5}),
        (UsageError, "threads must be 1 to 1024, not '2'", (checkpoint,), {"threads": "2"}),
        (CharsetError, "was not trained for", (checkpoint,), {"charset_test": "äöü"}),
        (CheckpointError, "neither a torch nor a safetensors file", (foreign,), {}),
    ]:
        with pytest.raises(error, match=message) as caught:
            Recognizer.load(*arguments, **options)
        assert "\n" not in str(caught.value) and isinstance(caught.value, Clip4StrError)


def test_gpus_that_cannot_be_used(monkeypatch):
    """What is said must be of use to who loads a recogniser: kernels' `implementation` is not theirs to choose."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "Old")

    def broken(device=None):
        raise RuntimeError("CUDA error: device busy or unavailable\nmore lines")

    for capability, message in [
        (lambda device: (7, 5), r"Old has compute capability 7.5, the kernels need 8.0 or newer; device='cpu' runs"),
        (broken, r"device cuda:0: cannot be used \(CUDA error: device busy or unavailable\)$"),
    ]:
        check_capability.cache_clear()
        monkeypatch.setattr(torch.cuda, "get_device_capability", capability)
        with pytest.raises(BackendError, match=message):
            choose_device("cuda:0")
    with pytest.raises(BackendError, match="there are 2 GPUs"):
        choose_device("cuda:2")
    check_capability.cache_clear()


def test_weights_that_find_no_room(random_model, monkeypatch):
    for error, message in [
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), r"^big: its weights do not fit the memory of cpu"),
        (RuntimeError("CUDA error: unknown error\nCompile"), r"cannot be packed on cpu \(CUDA error: unknown error\)$"),
    ]:

        def fail(*args, _error=error):
            raise _error

        monkeypatch.setattr("clip4str.runtime.backends.pytorch.weights.pack_decoder", fail)
        with pytest.raises(BackendError, match=message):
            pack(source_of_model(random_model(seed=1), "big"), torch.float32, CPU)


def _changed(bundle, target, change):
    """A copy of the bundle with other weights, as the manifest lists them."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(bundle, target)
    path = target / "weights.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)
    manifest = json.loads((target / "manifest.json").read_text())
    manifest["files"]["weights.safetensors"] = describe_file(path)
    (target / "manifest.json").write_text(json.dumps(manifest))
    return target


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("clip_model.visual.proj"), r"clip_model\.visual\.proj is nothing, expected \(128, 64\)"),
        (lambda t: t.update(other=torch.zeros(2)), r"other is \(2,\), expected nothing"),
        (lambda t: t.update({"cross_decoder.norm.weight": torch.zeros(3)}), r"is \(3,\), expected \(64,\)"),
        (lambda t: t.pop("clip_model.visual.conv1.weight"), "not the weights of this bundle"),
    ],
)
def test_weights_that_are_not_the_manifests(change, message, bundle, tmp_path):
    with pytest.raises(BundleError, match=message) as caught:
        Recognizer.load(_changed(bundle, tmp_path / "b", change), "torch")
    assert "\n" not in str(caught.value)


def test_damaged_weights(bundle, tmp_path):
    damaged = tmp_path / "damaged"
    shutil.copytree(bundle, damaged)
    path = damaged / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 255
    path.write_bytes(data)
    with pytest.raises(BundleError, match="its sha256 is not the manifest's"):
        Recognizer.load(damaged, "torch")
    path.write_bytes(b"\xff" * len(data))
    with pytest.raises(BundleError, match="not the weights of this bundle"):
        Recognizer.load(damaged, "torch", verify=False)


def test_weights_that_overflow_half_precision(random_model):
    model = random_model(seed=1)
    model.clip_model.visual.transformer.resblocks[0].ln_1.weight.fill_(1e6)
    with pytest.raises(BackendError, match="overflow float16; load with dtype='bfloat16'"):
        pack(source_of_model(model, "big"), torch.float16, CPU)
    pack(source_of_model(model, "big"), torch.bfloat16, CPU)


def test_weights_are_taken_once_and_let_go(random_model):
    source = source_of_model(random_model(seed=1), "small")
    pack(source, torch.float32, CPU)
    with pytest.raises(KeyError):
        source.take("clip_model.visual.proj")
    assert source.take("clip_model.logit_scale") is not None, "the only one that nothing needs"


def test_parity_stages_take_another_backends_arrays(bundle, golden):
    stages = cpu_stages(Bundle.open(bundle))
    pixels = (np.float32(1 / 127.5) * golden("tiny")["images"][:2] - 1).transpose(0, 3, 1, 2)
    visual_kv, _ = stages.image(pixels)
    tokens, rule = np.full((2, 1), 95, np.int32), Rule("start", np.zeros(2, int), 26)
    mine, theirs = stages.visual(tokens, rule, visual_kv), stages.visual(tokens, rule, visual_kv.numpy().copy())
    np.testing.assert_array_equal(mine.ids, theirs.ids)


@pytest.mark.parametrize("kind", ["bundle", "checkpoint"])
def test_commands(kind, bundle, golden_checkpoint, golden, tmp_path, capsys):
    source = str(bundle if kind == "bundle" else golden_checkpoint("tiny"))
    for i, image in enumerate(golden("tiny")["images"][:3]):
        Image.fromarray(image).save(tmp_path / f"{i}.png")
    read = ["read", "--bundle", source, "--backend", "torch", "--json", "--threads", "1", str(tmp_path)]
    assert main(read) == 0
    words = [json.loads(line)["text"] for line in capsys.readouterr().out.splitlines()]
    assert words == golden("tiny")["text"][:3].tolist()
    assert main(["info", source]) == 0
    assert ("weights.safetensors" if kind == "bundle" else "parameters") in capsys.readouterr().out
    assert main([*read, "--device", "cuda"]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "cannot use a GPU" in error
