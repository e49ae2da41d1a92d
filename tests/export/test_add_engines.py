"""Adding engines to a bundle: all or nothing, once, and with a way on when it fails. The engines here are stand-ins."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from clip4str.core.errors import BackendError, BundleError, ParityError, UsageError
from clip4str.export import add_engines
from clip4str.export.add_engines import finish_bundle
from clip4str.export.build_engine import main
from clip4str.export.engines import EngineOptions
from clip4str.export.parity_images import sample_images
from clip4str.runtime import Recognizer
from clip4str.runtime.backends import trt
from clip4str.runtime.backends.ort import OrtBackend
from clip4str.runtime.bundle import KERNELS, STAGES, Bundle

ROOT = Path(__file__).resolve().parents[2]
OPTIONS = EngineOptions(target="tensorrt")
FINISH = (
    "bundles/tiny-fp16 is whole, to build its engines: "
    "clip4str build bundles/tiny-fp16 --target tensorrt --min-batch 1 --opt-batch 8 --max-batch 32"
)


def everything(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


@pytest.fixture
def bundle(half_bundle, tmp_path):
    return Path(shutil.copytree(half_bundle, tmp_path / "bundle"))


@pytest.fixture
def library(monkeypatch):
    """A TensorRT that writes the stage's name into its plans."""
    calls = []

    def build(folder, manifest, options, *, say, detail):
        calls.append(options)
        files = {}
        for stage in STAGES:
            (folder / f"{stage}.plan").write_text(f"{stage} {len(calls)}")
            files[stage] = f"{stage}.plan"
        profile = {"min": options.min_batch, "opt": options.opt_batch, "max": options.max_batch}
        said = {"target": options.target, "version": "10.3.0", "gpu": "Orin", "command": "clip4str build"}
        return {**said, "profile": profile, "files": files, "key": f"{options}"}

    monkeypatch.setattr(add_engines, "build_engines", build)
    monkeypatch.setattr(add_engines, "engine_key", lambda manifest, options: f"{options}")
    monkeypatch.setattr(add_engines, "why_unusable", lambda: "no GPU here")
    return calls


def test_engines_become_files_of_the_bundle(bundle, library):
    before, said = everything(bundle), []
    assert finish_bundle(bundle, OPTIONS, say=said.append) == bundle
    opened = Bundle.open(bundle, verify=True)
    assert opened.engine("text").read_text() == "text 1"
    assert opened.manifest.engines["parity"] == {"checked": False, "why": "no GPU here"}
    assert "no GPU here" in said[-1]
    after = everything(bundle)
    assert all(after[name] == data for name, data in before.items() if name != "manifest.json")
    assert [p.name for p in bundle.parent.iterdir()] == ["bundle"]


def test_the_same_again_does_nothing_and_other_options_replace(bundle, library):
    finish_bundle(bundle, OPTIONS)
    stood = {p: p.stat().st_mtime_ns for p in bundle.iterdir()}
    said = []
    finish_bundle(bundle, OPTIONS, say=said.append)
    assert len(library) == 1 and "up to date" in said[0]
    assert {p: p.stat().st_mtime_ns for p in bundle.iterdir()} == stood
    finish_bundle(bundle, OPTIONS, force=True)
    finish_bundle(bundle, EngineOptions(target="tensorrt", max_batch=16))
    opened = Bundle.open(bundle, verify=True)
    assert len(library) == 3 and opened.engine("image").read_text() == "image 3"
    assert opened.manifest.engines["profile"]["max"] == 16


@pytest.mark.parametrize("failure", [KeyboardInterrupt(), BackendError("workspace"), OSError("disk full")])
def test_a_failure_leaves_the_bundle_as_it_was(bundle, library, monkeypatch, failure):
    finish_bundle(bundle, OPTIONS)
    before, build = everything(bundle), add_engines.build_engines

    def fail(folder, *rest, **more):
        build(folder, *rest, **more)
        raise failure

    monkeypatch.setattr(add_engines, "build_engines", fail)
    with pytest.raises(type(failure)):
        finish_bundle(bundle, OPTIONS, force=True)
    assert everything(bundle) == before and [p.name for p in bundle.parent.iterdir()] == ["bundle"]


def test_engines_that_read_differently_are_not_let_in(bundle, library, monkeypatch):
    before = everything(bundle)

    def refuse(*args):
        raise ParityError("20 of 32 words agree")

    monkeypatch.setattr(add_engines, "_parity", refuse)
    with pytest.raises(ParityError):
        finish_bundle(bundle, OPTIONS)
    assert everything(bundle) == before


def test_what_cannot_be_finished(bundle, library, tmp_path):
    with pytest.raises(UsageError, match="batches of up to 32, not 64"):
        finish_bundle(bundle, EngineOptions(target="tensorrt", max_batch=64))
    with pytest.raises(BundleError, match="no such bundle"):
        finish_bundle(tmp_path / "nothing", OPTIONS)
    (bundle / "text.onnx").write_bytes(b"damaged")
    with pytest.raises(BundleError, match=r"text\.onnx"):
        finish_bundle(bundle, OPTIONS)
    assert not library


def test_the_command_on_a_folder(bundle, library, capsys):
    assert main([str(bundle), "--target", "tensorrt", "--max-batch", "4"]) == 0
    assert library[0].max_batch == 4 and library[0].opt_batch == 4
    assert "is ready" in capsys.readouterr().out
    for arguments, message in (
        (["--int8"], "--int8: .* is a bundle already"),
        (["--normalization", "half"], "--normalization: .* is a bundle already"),
        (["--torch"], "--torch: .* is a bundle already"),
        (["--target", "onnx"], "is a bundle: name what its engines are for"),
    ):
        assert main([str(bundle), "--target", "tensorrt", *arguments]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1 and re.search(message, error)


def test_without_tensorrt_the_onnx_bundle_stands(golden_checkpoint, tmp_path, monkeypatch, capsys):
    def missing(*args):
        raise BackendError("TensorRT is not installed: pip install tensorrt")

    monkeypatch.setattr(add_engines, "engine_key", missing)
    monkeypatch.chdir(tmp_path)
    command = [str(golden_checkpoint("tiny")), "--fp16", "--min-agreement", "0", "--target", "tensorrt"]
    assert main(command) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and "pip install tensorrt" in error
    assert error.rstrip().endswith(FINISH)
    assert not Bundle.open("bundles/tiny-fp16", verify=True).manifest.engines
    assert main([*command, "--no-engines"]) == 0
    assert "clip4str build bundles/tiny-fp16 --target tensorrt" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [("--compute-capability", "5.0", "does not build for 5.0; it knows "), ("--workspace", "1", "raise --workspace")],
)
def test_the_command_for_the_engines_leaves_out_what_was_at_fault(
    option, value, said, golden_checkpoint, tmp_path, monkeypatch, capsys
):
    pytest.importorskip("tensorrt_rtx")
    monkeypatch.chdir(tmp_path)
    command = [str(golden_checkpoint("tiny")), "--fp16", "--min-agreement", "0", "--target", "tensorrt-rtx"]
    assert main([*command, option, value]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1 and said in error, error
    assert error.rstrip().endswith(FINISH.replace("tensorrt", "tensorrt-rtx"))


def test_the_plain_command_says_what_is_missing_for_engines(golden_checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert main([str(golden_checkpoint("tiny")), "--fp16", "--min-agreement", "0"]) == 0
    said = capsys.readouterr().out
    there = "on the machine that will run them: clip4str build bundles/tiny-fp16 --target tensorrt\n"
    assert "no engines: " in said and f"; {there}" in said, "no kernels are compiled for this network"
    assert main(["bundles/tiny-fp16"]) == 2
    error = capsys.readouterr().err
    assert (
        re.search(r"is a bundle: name .* tensorrt-rtx \(auto: .*(NVIDIA|CUDA|TensorRT)", error)
        and error.count("\n") == 1
    )


def test_the_commands_that_it_names_lead_to_engines_and_decoders(tmp_path, monkeypatch, capsys, library):
    """Of the packaged network, as the kernels take it."""
    monkeypatch.chdir(tmp_path)
    assert main(["--fp16"]) == 0
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("no engines: ")]
    commands = [command.split(";")[0].split() for command in line.split("clip4str build ")[1:]]
    assert commands == [
        ["--fp16", "--target", "tensorrt", "--no-engines", "--force"],
        ["bundles/clip4str-small-fp16", "--target", "tensorrt"],
    ]
    lacks = "bundles/clip4str-small-fp16 has no decoders for the compiled kernels"
    assert main(commands[1]) == 0
    assert capsys.readouterr().out.startswith(f"{lacks} (decoders.npz): its engines decode stage by stage, slower; ")
    for command in commands:
        assert main(command) == 0
    assert lacks not in capsys.readouterr().out
    manifest = Bundle.open("bundles/clip4str-small-fp16", verify=True).manifest
    assert manifest.engines and KERNELS in manifest.stages


def test_engines_that_were_never_run_are_checked_where_they_can_be(bundle, library, monkeypatch):
    finish_bundle(bundle, OPTIONS)
    with pytest.warns(RuntimeWarning, match="never compared with the network"), pytest.raises(BackendError):
        Recognizer.load(bundle, "tensorrt")
    monkeypatch.setattr(add_engines, "_parity", lambda *args: {"checked": True, "agreement": 1.0})
    finish_bundle(bundle, OPTIONS)
    assert len(library) == 1, "nothing is built again"
    assert Bundle.open(bundle, verify=True).manifest.engines["parity"]["checked"]


def test_engines_for_another_gpu_than_the_one_here_are_left_unchecked(monkeypatch):
    device = SimpleNamespace(compute_capability="8.9")
    monkeypatch.setattr(add_engines, "why_unusable", lambda: None)
    monkeypatch.setattr(add_engines, "open_cuda", lambda: SimpleNamespace(device=device, close=lambda: None))
    for built_for, why in (["8.6"], "they are for compute capability 8.6, here is 8.9"), (["8.6", "8.9"], None):
        manifest = SimpleNamespace(engines={"target": "tensorrt-rtx", "compute_capabilities": built_for})
        assert add_engines._why_not_run(manifest) == why


class Backend:
    """ONNX Runtime in the TensorRT backend's place, wrong where it decodes by `wrong`. Kernels read in one launch."""

    flexible_steps = False

    def __init__(self, bundle, wrong):
        self.stages, self.kernels, self.wrong = OrtBackend(bundle, threads=1), KERNELS in bundle.manifest.stages, wrong
        self.image, self.text, self.stack = self.stages.image, self.stages.text, self.stages.stack
        self.closed, self.compiled_kernels, self.batch_size = False, False, 5
        self.one_launch = self.kernels

    def visual(self, tokens, rule, kv):
        return self.stages.visual(tokens, rule, kv)

    def cross(self, tokens, rule, *memory):
        found = self.stages.cross(tokens, rule, *memory)
        here = "kernels" if self.kernels else "engines"
        return found._replace(ids=found.ids * 0 + 1) if self.wrong == here else found

    def read(self, driver, pixels):
        assert not self.with_logits
        reading = driver(self, pixels)
        return replace(reading, ids=reading.ids + 1) if self.wrong == "one launch" else reading

    def close(self):
        self.closed = True


@pytest.mark.parametrize("wrong", ["", "engines", "kernels", "one launch"])
def test_engines_and_kernels_are_both_compared(bundle, monkeypatch, wrong):
    manifest = Bundle.open(bundle).manifest
    (bundle / "decoders.npz").write_bytes(b"")
    with_kernels = replace(manifest, stages={**manifest.stages, KERNELS: "decoders.npz"})
    opened = []

    def open_backend(bundle, driver, options):
        opened.append(Backend(bundle, wrong))
        opened[-1].compiled_kernels = opened[-1].kernels
        return opened[-1]

    monkeypatch.setattr(trt, "open_backend", open_backend)
    monkeypatch.setattr(add_engines, "_why_not_run", lambda manifest: None)
    if wrong:
        with pytest.raises(
            ParityError, match=r"words agree.*in one launch" if wrong == "one launch" else "words agree"
        ):
            add_engines._parity(bundle, with_kernels, sample_images(), 0.9, lambda _: None)
    else:
        found = add_engines._parity(bundle, with_kernels, sample_images(), 0.9, lambda _: None)
        assert found["checked"] and found["agreement"] == found["with_kernels"]["agreement"] == 1
        assert found["with_kernels"]["one_launch_agreement"] == 1 and "one_launch_agreement" not in found
    assert [b.kernels for b in opened] == [False, True][: 1 if wrong == "engines" else 2]
    assert all(b.closed for b in opened)


def test_a_bundle_that_one_stands_in(bundle, library, monkeypatch, capsys):
    monkeypatch.chdir(bundle)
    assert main([".", "--target", "tensorrt"]) == 0
    assert "is ready" in capsys.readouterr().out
    assert Bundle.open(bundle, verify=True).manifest.engines


def test_engine_options_need_engines(golden_checkpoint, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for option in (["--workspace", "64"], ["--opt-batch", "2"], ["--no-engines"], ["--version-compatible"]):
        assert main([str(golden_checkpoint("tiny")), "--target", "onnx", *option]) == 2
        assert f"{option[0]} is about engines" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


def test_adding_engines_needs_no_torch(bundle):
    """A board has neither torch nor onnx: both are blocked here."""
    script = (
        "import sys\n"
        "for name in ('torch', 'onnx', 'safetensors', 'tensorrt'): sys.modules[name] = None\n"
        "from clip4str.export.build_engine import main\n"
        "sys.exit(main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", script, str(bundle), "--target", "tensorrt"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, env={**os.environ, "PYTHONPATH": str(ROOT)})
    assert run.returncode == 2 and run.stderr.count("\n") == 1
    assert run.stderr.startswith("clip4str build: error:") and "TensorRT" in run.stderr
