"""Every published form of checkpoint, every size, and everything that is not a checkpoint."""

import argparse
import collections
import io
import json
import os
import pickle
import subprocess
import sys
import types
import zipfile
from dataclasses import replace

import numpy as np
import pytest
import torch
from golden_weights import GOLDEN, golden_state
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from clip4str.core.errors import CheckpointError, UnsafeCheckpointError
from clip4str.model import Config, config_from_shapes, load_checkpoint, save_checkpoint
from clip4str.model.checkpoint import write_temperature


@pytest.fixture(scope="module")
def model(random_model):
    return random_model(seed=1)


def same(a, b):
    a, b = a.state_dict(), b.state_dict()
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_lightning_bare_half_and_wrapped_checkpoints(model, tmp_path):
    state = model.state_dict()
    hyper = {"img_size": [32, 64], "charset_test": "abc", "lr": 8.4e-5, "dec_num_heads": 4}
    torch.save({"state_dict": state, "hyper_parameters": hyper, "epoch": 3}, tmp_path / "a.ckpt")
    loaded = load_checkpoint(tmp_path / "a.ckpt")
    assert same(loaded, model) and loaded.config.image_size == (32, 64) and loaded.charset.test == "abc"
    assert not loaded.training and next(loaded.parameters()).dtype == torch.float32
    torch.save(collections.OrderedDict(state), tmp_path / "b.pt")
    assert same(load_checkpoint(tmp_path / "b.pt", image_size=(32, 64)), model)
    torch.save({f"module.{k}": v.half() for k, v in state.items()}, tmp_path / "c.pt")
    half = load_checkpoint(tmp_path / "c.pt", image_size=(32, 64)).state_dict()
    assert all(torch.equal(half[k], v.half().float()) for k, v in state.items())
    torch.save(state, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    assert same(load_checkpoint(tmp_path / "old.pt", image_size=(32, 64)), model)
    save_file({k: v.contiguous() for k, v in state.items()}, tmp_path / "e.safetensors")
    assert same(load_checkpoint(tmp_path / "e.safetensors", image_size=(32, 64)), model)


def test_our_own_form_keeps_the_whole_configuration(model, tmp_path):
    save_checkpoint(model, tmp_path / "a.safetensors")
    loaded = load_checkpoint(tmp_path / "a.safetensors")
    assert same(loaded, model) and loaded.config == model.config
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]
    save_checkpoint(model, tmp_path / "a.safetensors", torch.float16)
    assert load_checkpoint(tmp_path / "a.safetensors").config == model.config


def test_a_temperature_is_noted_beside_tensors_that_stay_as_they_are(model, tmp_path):
    path = tmp_path / "a.safetensors"
    save_checkpoint(model, path, torch.float16)
    before, config = load_file(path), load_checkpoint(path).config
    assert config.temperature == 1.0
    save_file(before, path, {"clip4str": json.dumps({**config.to_dict(), "note": "kept"}), "licence": "ours"})
    for temperature in (1.75, 2, 0.2):
        write_temperature(path, temperature)
        after = load_file(path)
        assert after.keys() == before.keys()
        assert all(v.dtype == torch.float16 and v.equal(before[k]) for k, v in after.items())
        assert load_checkpoint(path).config == replace(config, temperature=temperature)
    with safe_open(path, "pt") as file:
        assert file.metadata()["licence"] == "ours" and json.loads(file.metadata()["clip4str"])["note"] == "kept"
    assert [p.name for p in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_temperature_goes_into_checkpoints_without_metadata_too(model, tmp_path):
    path = tmp_path / "bare.safetensors"
    save_file({k: v.contiguous() for k, v in model.state_dict().items()}, path)
    write_temperature(path, 1.5)
    loaded = load_checkpoint(path, image_size=model.config.image_size)
    assert loaded.config.temperature == 1.5 and same(loaded, model)


def test_a_temperature_that_cannot_be_written_leaves_the_file_alone(model, tmp_path, monkeypatch):
    path, other = tmp_path / "a.safetensors", tmp_path / "a.pt"
    save_checkpoint(model, path)
    torch.save(model.state_dict(), other)
    content = path.read_bytes()
    for wrong in (0, 21, float("nan"), "2", True):
        with pytest.raises(CheckpointError, match=r"expected 0\.2 to 20"):
            write_temperature(path, wrong)
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        write_temperature(other, 2.0)

    def full(*_):
        raise OSError("no space left")

    monkeypatch.setattr("clip4str.core.atomic_files.os.replace", full)
    with pytest.raises(CheckpointError, match=r"cannot be written \(no space left\)"):
        write_temperature(path, 2.0)
    assert path.read_bytes() == content and sorted(p.name for p in tmp_path.iterdir()) == ["a.pt", "a.safetensors"]


def test_another_kind_of_temperature_in_hyper_parameters_is_not_ours(model, tmp_path):
    """Distillation has one too, and any number may stand there."""
    hyper = {"img_size": [32, 64], "dec_num_heads": 4, "temperature": 0.07}
    torch.save({"state_dict": model.state_dict(), "hyper_parameters": hyper}, tmp_path / "a.ckpt")
    assert load_checkpoint(tmp_path / "a.ckpt").config == model.config


def test_hyper_parameters_of_classes_that_are_not_installed(model, tmp_path, monkeypatch):
    """Published checkpoints hold omegaconf lists; reading them must need, and run, nothing of omegaconf."""
    module = types.ModuleType("omegaconf.listconfig")

    class ListConfig:
        def __init__(self):
            self.content = [32, 64]

        def __setstate__(self, state):
            raise AssertionError("foreign code ran")

    ListConfig.__module__, ListConfig.__qualname__ = "omegaconf.listconfig", "ListConfig"
    module.ListConfig = ListConfig
    monkeypatch.setitem(sys.modules, "omegaconf", types.ModuleType("omegaconf"))
    monkeypatch.setitem(sys.modules, "omegaconf.listconfig", module)
    torch.save(
        {"state_dict": model.state_dict(), "hyper_parameters": {"img_size": ListConfig()}},
        tmp_path / "a.ckpt",
    )
    assert same(load_checkpoint(tmp_path / "a.ckpt", image_size=(32, 64)), model)


@pytest.mark.parametrize("size", ["tiny", "base16", "base32", "large", "huge"])
def test_published_sizes_are_read_off_their_shapes(size):
    shapes = json.loads((GOLDEN / f"keys-{size}.json").read_text())
    c = config_from_shapes(shapes)
    want = {
        "tiny": Config((64, 64), (16, 16), 128, 3, 64, 2, d=64, decoder_mlp=256),
        "base16": Config(),
        "base32": Config(patch_size=(32, 32)),
        "large": Config((224, 224), (14, 14), 1024, 24, 768, 12, d=768, decoder_mlp=3072),
        "huge": Config((224, 224), (14, 14), 1280, 32, 1024, 24, d=1024, decoder_mlp=4096),
    }[size]
    assert c == want
    assert (c.image_heads, c.text_heads) == {"huge": (20, 16)}.get(size, (c.image_width // 64, c.text_width // 64))


def test_rectangular_inputs():
    shapes = json.loads((GOLDEN / "keys-tiny.json").read_text())
    shapes["clip_model.visual.conv1.weight"] = [128, 3, 4, 8]
    shapes["clip_model.visual.positional_embedding"] = [129, 128]
    assert config_from_shapes(shapes).image_size == (32, 128)
    assert config_from_shapes(shapes, image_size=(64, 64)).grid == (16, 8)
    assert config_from_shapes(shapes, {"img_size": [32, 128]}).memory_tokens == 129
    with pytest.raises(CheckpointError, match="image size 48x128 has 12x16 patches"):
        config_from_shapes(shapes, image_size=(48, 128))
    shapes["clip_model.visual.positional_embedding"] = [12, 128]
    with pytest.raises(CheckpointError, match="give it"):
        config_from_shapes(shapes)


def write(path, data):
    path.write_bytes(data)
    return path


def torch_bytes(value):
    out = io.BytesIO()
    torch.save(value, out)
    return out.getvalue()


class Malicious:
    """Pickles as a call of the system's shell that would leave a file behind."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return os.system, (f"touch '{self.trace}'",)


@pytest.mark.parametrize("name", ["zip.ckpt", "legacy.pt", "raw.pt", "raw5.pt"])
def test_malicious_pickles_are_refused_and_not_run(name, tmp_path, model):
    trace = tmp_path / "was-here"
    payload = {"state_dict": {**model.state_dict(), "x": Malicious(trace)}}
    legacy = io.BytesIO()
    torch.save(payload, legacy, _use_new_zipfile_serialization=False)
    data = {
        "zip.ckpt": torch_bytes(payload),
        "legacy.pt": legacy.getvalue(),
        "raw.pt": pickle.dumps(Malicious(trace), protocol=2),
        "raw5.pt": pickle.dumps(Malicious(trace), protocol=5),
    }[name]
    assert b"system" in data and b"touch" in data
    with pytest.raises(CheckpointError) as caught:
        load_checkpoint(write(tmp_path / name, data))
    assert not trace.exists() and "\n" not in str(caught.value)
    if name != "raw5.pt":  # torch reads no such pickle at all
        assert isinstance(caught.value, UnsafeCheckpointError) and "refused" in str(caught.value)


def test_what_else_stands_in_published_checkpoints(model, tmp_path):
    """The old schedule's state holds a bound method, pickled as a call of getattr; callbacks hold numpy scalars."""

    class OneCycle:
        def __reduce__(self):
            return getattr, (torch.optim.lr_scheduler.OneCycleLR, "_annealing_cos")

    hyper = argparse.Namespace(lr=1.0)
    extra = {
        "lr_schedulers": [{"anneal_func": OneCycle()}],
        "callbacks": np.float64(3),
        "loops": collections.defaultdict(list),
    }
    torch.save({"state_dict": model.state_dict(), "hyper_parameters": hyper, **extra}, tmp_path / "a.ckpt")
    assert same(load_checkpoint(tmp_path / "a.ckpt", image_size=(32, 64)), model)


def test_small_files_that_claim_large_tensors(model, tmp_path):
    state = {k: torch.zeros((), dtype=torch.float16).expand(v.shape) for k, v in model.state_dict().items()}
    torch.save(state, tmp_path / "stride0.pt")
    with pytest.raises(CheckpointError, match="claims more numbers than it holds"):
        load_checkpoint(tmp_path / "stride0.pt", image_size=(32, 64))
    plain = io.BytesIO(torch_bytes(model.state_dict()))
    with zipfile.ZipFile(plain) as archive, zipfile.ZipFile(tmp_path / "z.pt", "w", zipfile.ZIP_DEFLATED) as deflated:
        for entry in archive.infolist():
            deflated.writestr(entry.filename, archive.read(entry))
    with pytest.raises(CheckpointError, match="compressed archive"):
        load_checkpoint(tmp_path / "z.pt")
    sparse = {**model.state_dict(), "cross_decoder.head.bias": torch.zeros(95).to_sparse()}
    torch.save(sparse, tmp_path / "sparse.pt")
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "sparse.pt", image_size=(32, 64))


@pytest.mark.parametrize(
    ("hints", "message"),
    [
        ({"decoder_heads": 0}, "must be at least 1"),
        ({"decoder_heads": 7}, "not a multiple of its 7 heads"),
        ({"context": 100}, "context of 100"),
        ({"context": 1}, "context of 1"),
        ({"image_size": [-32, -64]}, "image size|at least 1"),
        ({"temperature": 0}, "temperature is 0, expected"),
        ({"temperature": -2.5}, "temperature is -2.5, expected"),
        ({"temperature": float("nan")}, "temperature is nan, expected"),
        ({"temperature": 10**400}, "temperature is 10*, expected"),
        ({"temperature": True}, "temperature is True, expected"),
    ],
)
def test_hints_that_cannot_be(model, tmp_path, hints, message):
    tensors = {k: v.contiguous() for k, v in model.state_dict().items()}
    save_file(tensors, tmp_path / "a.safetensors", {"clip4str": json.dumps({"image_size": [32, 64], **hints})})
    with pytest.raises(CheckpointError, match=message):
        load_checkpoint(tmp_path / "a.safetensors")


@pytest.mark.parametrize(
    "text", ["5", '{"charset": 5}', '{"image_size": "abc"}', '{"context": null}', "{", "[" * 99999]
)
def test_metadata_of_the_wrong_kind_is_no_crash(model, tmp_path, text):
    tensors = {k: v.contiguous() for k, v in model.state_dict().items()}
    save_file(tensors, tmp_path / "a.safetensors", {"clip4str": text})
    try:
        assert same(load_checkpoint(tmp_path / "a.safetensors", image_size=(32, 64)), model)
    except CheckpointError as error:
        assert "\n" not in str(error)


def test_truncated_and_foreign_files(tmp_path, model):
    good = torch_bytes({"state_dict": model.state_dict()})
    save_checkpoint(model, tmp_path / "good.safetensors")
    tensors = (tmp_path / "good.safetensors").read_bytes()
    script = io.BytesIO()
    with zipfile.ZipFile(script, "w") as archive:
        archive.writestr("archive/code/model.py", "class A: pass")
    cases = {
        "cut.ckpt": (good[: len(good) // 2], "truncated or damaged"),
        "cut.safetensors": (tensors[: len(tensors) // 2], "truncated or damaged"),
        "cut-header.safetensors": (tensors[:50], "truncated or damaged"),
        "empty.pt": (b"", "the file is empty"),
        "page.pt": (b"<!DOCTYPE html><html>", "is the download complete"),
        "script.pt": (script.getvalue(), "TorchScript"),
        "list.pt": (torch_bytes([1, 2]), "not a state_dict"),
        "texts.pt": (torch_bytes({"a": "b"}), "holds no tensors"),
        "resnet.pt": (torch_bytes({"conv1.weight": torch.zeros(3, 3)}), "not a CLIP4STR checkpoint"),
    }
    for name, (data, message) in cases.items():
        with pytest.raises(CheckpointError, match=message) as caught:
            load_checkpoint(write(tmp_path / name, data))
        assert name in str(caught.value) and "\n" not in str(caught.value)
    with pytest.raises(CheckpointError, match="does not exist"):
        load_checkpoint(tmp_path / "nothing.ckpt")
    with pytest.raises(CheckpointError, match="is a folder"):
        load_checkpoint(tmp_path)


def test_missing_extra_and_misshapen_keys_are_listed(tmp_path, model):
    state = model.state_dict()
    less = {k: v for k, v in state.items() if "linear2" not in k}
    torch.save(less, tmp_path / "less.pt")
    with pytest.raises(CheckpointError, match=r"4 keys missing: cross_decoder\.layers\.0\.linear2\.bias"):
        load_checkpoint(tmp_path / "less.pt", image_size=(32, 64))
    torch.save({**state, "head.extra": torch.zeros(1)}, tmp_path / "more.pt")
    with pytest.raises(CheckpointError, match=r"1 keys not of this network: head\.extra"):
        load_checkpoint(tmp_path / "more.pt", image_size=(32, 64))
    wrong = {**state, "cross_decoder.head.bias": torch.zeros(7)}
    torch.save(wrong, tmp_path / "wrong.pt")
    with pytest.raises(CheckpointError, match=r"cross_decoder\.head\.bias is \(7,\), expected \(95,\)"):
        load_checkpoint(tmp_path / "wrong.pt", image_size=(32, 64))
    with pytest.raises(CheckpointError, match="predicts 95 classes but the charset has 3"):
        load_checkpoint(tmp_path / "wrong.pt", image_size=(32, 64), charset="abc")


def test_nothing_is_read_off_the_file_name(tmp_path):
    state = {k: torch.from_numpy(v) for k, v in golden_state("tiny", 1, 0.0).items()}
    torch.save(state, tmp_path / "clip4str_huge_3e942729b1.pt")
    assert load_checkpoint(tmp_path / "clip4str_huge_3e942729b1.pt").config.image_width == 128


def test_a_safetensors_file_that_there_is_no_room_for_is_one_line(tmp_path):
    """A container's limit, or ulimit -v: the file is good and cannot be mapped."""
    code = (
        "import resource, sys, safetensors.torch; from clip4str.core.errors import CheckpointError\n"
        "from clip4str.model import load_checkpoint\n"
        "size = int(open('/proc/self/statm').read().split()[0]) * 4096 + (64 << 20)\n"
        "resource.setrlimit(resource.RLIMIT_AS, (size, size))\n"
        "try: load_checkpoint(sys.argv[1])\n"
        "except CheckpointError as error: print(error)"
    )
    head = json.dumps({"w": {"dtype": "F32", "shape": [1 << 26], "data_offsets": [0, 1 << 28]}}).encode()
    path = tmp_path / "large.safetensors"
    with path.open("wb") as file:
        file.write(len(head).to_bytes(8, "little") + head)
        file.truncate(8 + len(head) + (1 << 28))
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert "large.safetensors: cannot be opened" in done.stdout and done.stdout.count("\n") == 1
