"""Model repositories as they are written: whole, self-contained, and with a configuration that the server's own schema
reads."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from clip4str.core import cli
from clip4str.core.errors import UsageError
from clip4str.core.packaged import PACKAGED
from clip4str.runtime.bundle import Bundle
from clip4str.serving.triton import graph_repository, repository, triton_command
from clip4str.serving.triton.options import Serving
from clip4str.serving.triton.pbtxt import INPUTS, OUTPUTS, python_config
from clip4str.serving.versions import bundle_version


def serve(*arguments: object) -> int:
    return cli.main(["serve", "triton", *map(str, arguments)])


def parsed(text: str):
    """By the server's own schema, which refuses what it does not know."""
    schema = pytest.importorskip("tritonclient.grpc.model_config_pb2", reason="make test-serving")
    from google.protobuf import text_format

    return text_format.Parse(text, schema.ModelConfig())


def test_a_repository_holds_all_that_it_needs(tmp_path, capsys):
    target = tmp_path / "repo"
    assert serve(PACKAGED, "--output", target) == 0
    bundle = Bundle.open(target / "clip4str" / "1" / "bundle")
    version = bundle_version(Bundle.open(PACKAGED).manifest)
    assert bundle_version(bundle.manifest) == version and version.startswith("clip4str-small-fp32@")
    assert capsys.readouterr().out.strip().endswith(f"version 1 is {version}")
    compile((target / "clip4str" / "1" / "model.py").read_text(), "model.py", "exec")
    assert not [path for path in target.rglob("*") if path.is_symlink()]
    assert [path.name for path in tmp_path.iterdir()] == ["repo"]


def test_versions_of_unequal_bundles_are_unequal(tiny_bundle, tmp_path):
    copy = shutil.copytree(tiny_bundle, tmp_path / "copy")
    first, second = (Bundle.open(folder).manifest for folder in (tiny_bundle, copy))
    assert bundle_version(first) == bundle_version(second) != bundle_version(Bundle.open(PACKAGED).manifest)
    values = json.loads((copy / "manifest.json").read_text())
    values["files"]["image.onnx"]["sha256"] = "0" * 64
    (copy / "manifest.json").write_text(json.dumps(values))
    assert bundle_version(Bundle.open(copy, verify=False).manifest) != bundle_version(first)


def test_what_is_there_stays_unless_force_says_so(tmp_path, capsys, tiny_bundle):
    target = tmp_path / "repo"
    assert serve(PACKAGED, "--output", target) == 0
    assert serve(tiny_bundle, "--output", target) == 2
    assert capsys.readouterr().err == (
        f"clip4str serve: error: {target}: exists; --force replaces it, --output writes elsewhere\n"
    )
    assert serve(tiny_bundle, "--output", target, "--force") == 0
    assert Bundle.open(target / "clip4str" / "1" / "bundle").manifest.name == Bundle.open(tiny_bundle).manifest.name
    other = tmp_path / "other"
    other.mkdir()
    (other / "letters.txt").write_text("mine")
    assert serve(PACKAGED, "--output", other, "--force") == 2
    assert "exists and is not a repository of clip4str" in capsys.readouterr().err
    assert [path.name for path in other.iterdir()] == ["letters.txt"]


def test_nothing_is_left_of_one_that_fails(tmp_path, capsys, monkeypatch):
    damaged = shutil.copytree(PACKAGED, tmp_path / "damaged")
    content = (damaged / "text.onnx").read_bytes()
    (damaged / "text.onnx").write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert serve(damaged, "--output", tmp_path / "repo") == 2
    assert "its sha256 is not the manifest's" in capsys.readouterr().err
    copy = repository.shutil.copyfile

    def changed_meanwhile(source, target, **how):
        copy(source, target, **how)
        Path(target).write_bytes(b"\0" + Path(target).read_bytes()[1:])

    monkeypatch.setattr(repository.shutil, "copyfile", changed_meanwhile)
    assert serve(PACKAGED, "--output", tmp_path / "repo") == 2
    assert "its sha256 is not the manifest's" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["damaged"]


def test_batches_are_no_larger_than_the_bundles(tmp_path, tiny_bundle):
    small = shutil.copytree(tiny_bundle, tmp_path / "small")
    values = json.loads((small / "manifest.json").read_text())
    (small / "manifest.json").write_text(json.dumps({**values, "max_batch": 4}))
    assert serve(small, "--output", tmp_path / "repo") == 0
    assert "max_batch_size: 4\n" in (tmp_path / "repo" / "clip4str" / "config.pbtxt").read_text()


def test_a_version_is_added_beside_the_others(tmp_path, capsys, tiny_bundle):
    target = tmp_path / "repo"
    assert serve(PACKAGED, "--output", target, "--name", "words") == 0
    before = (target / "words" / "config.pbtxt").read_text()
    (target / "words" / "7").mkdir()
    assert serve(tiny_bundle, "--output", target, "--add") == 0
    assert f"version 8 of words is {bundle_version(Bundle.open(tiny_bundle).manifest)}" in capsys.readouterr().out
    assert (target / "words" / "config.pbtxt").read_text() == before
    assert sorted(path.name for path in (target / "words").iterdir()) == ["1", "7", "8", "config.pbtxt"]
    for arguments, said in (
        (["--add", "--keep", 2], "--add takes a bundle and --output alone, not --keep"),
        (["--add", "--form", "onnx"], "not --form"),
        (["--add", "--force"], "not --force"),
    ):
        assert serve(tiny_bundle, "--output", target, *arguments) == 2
        assert said in capsys.readouterr().err
    for mark in ("no JSON", "[]", '{"model": "../../else", "form": "python"}', '{"model": "words", "form": "onnx"}'):
        (target / repository.MARK).write_text(mark)
        assert serve(tiny_bundle, "--output", target, "--add") == 2
        assert len(capsys.readouterr().err.splitlines()) == 1
    assert not (tmp_path / "else").exists() and not (target / "words" / "9").exists()


@pytest.mark.parametrize(
    "arguments, said",
    [
        (["--name", "../x"], "--name is of letters, digits, - and _"),
        (["--name", "x" * 65], "--name has 65 characters"),
        (["--name", ""], "--name is of letters"),
        (["--instances", "0"], "--instances is 1 to 64, not 0"),
        (["--delay-ms", "nan"], "--delay-ms is 0 to 10000, not nan"),
        (["--delay-ms", "-1"], "--delay-ms is 0 to 10000, not -1"),
        (["--gpus", "0,x"], "--gpus are numbers"),
        (["--gpus", "1,1", "--backend", "torch"], "--gpus names a GPU twice"),
        (["--gpus", "0", "--backend", "onnxruntime"], "--gpus is for tensorrt and torch"),
        (["--backend", "tensorrt"], "tensorrt needs a GPU: --gpus 0"),
        (["--backend", "tensorrt", "--gpus", "0"], "it has no engines; clip4str build"),
        (["--max-batch", "33"], "--max-batch 33: the bundle was built for 32 images at most"),
        (["--form", "plan"], "--form plan and --plan FILE go together"),
        (["--plan", "x"], "--form plan and --plan FILE go together"),
        (["--form", "plan", "--plan", "x"], "--form plan needs a GPU"),
        (["--form", "plan", "--plan", "/nowhere.plan", "--gpus", "0"], "/nowhere.plan: no such file"),
        (["--form", "onnx", "--backend", "torch"], "--backend and --keep are for --form python"),
        (["--form", "onnx", "--instances", "2"], "name their --threads"),
        (["--form", "onnx", "--max-batch", "64"], "--max-batch 64: the bundle was built for 32 images"),
        (["--ad"], "unrecognized arguments: --ad"),
    ],
)
def test_wrong_options_are_one_line_and_write_nothing(arguments, said, tmp_path, capsys):
    assert serve(PACKAGED, "--output", tmp_path / "repo", *arguments) == 2
    error = capsys.readouterr().err
    assert said in error and len(error.splitlines()) == 1
    assert not list(tmp_path.iterdir())


def test_no_server_and_no_bundle(tmp_path, capsys):
    assert cli.main(["serve", "tritton"]) == 2
    assert "invalid choice: 'tritton'" in capsys.readouterr().err
    assert serve(tmp_path, "--output", tmp_path / "repo") == 2
    assert len(capsys.readouterr().err.splitlines()) == 1
    (tmp_path / "net.safetensors").write_bytes(bytes(64))
    assert serve(tmp_path / "net.safetensors", "--output", tmp_path / "repo") == 2
    assert "is a checkpoint; build a bundle first" in capsys.readouterr().err
    with pytest.raises(UsageError):
        triton_command.main([])


def test_the_configuration_is_what_was_asked_for():
    config = parsed(python_config(Serving("words", "torch", 3, (0, 2), 64, 1.5, 100, 250, 4, 2)))
    assert (config.name, config.backend, config.max_batch_size) == ("words", "python", 64)
    assert [(one.name, list(one.dims), one.optional) for one in config.input] == [
        ("image", [1], True), ("pixels", [-1, -1, -1], True), ("quads", [-1, 4, 2], True),
    ]  # fmt: skip
    assert [one.name for one in config.output] == [one.name for one in OUTPUTS] and len(INPUTS) == 3
    policy = config.dynamic_batching.default_queue_policy
    assert config.dynamic_batching.max_queue_delay_microseconds == 1500
    assert (policy.max_queue_size, policy.default_timeout_microseconds) == (100, 250_000)
    assert policy.allow_timeout_override and policy.timeout_action == policy.REJECT
    (group,) = config.instance_group
    assert (group.count, group.kind, list(group.gpus)) == (3, group.KIND_GPU, [0, 2])
    assert config.version_policy.latest.num_versions == 2
    assert {name: value.string_value for name, value in config.parameters.items()} == {
        "backend": "torch",
        "threads": "4",
    }
    default = parsed(python_config(Serving()))
    assert default.dynamic_batching.default_queue_policy.max_queue_size == 4 * default.max_batch_size
    assert [group.kind for group in default.instance_group] == [default.instance_group[0].KIND_CPU]
    assert default.parameters["threads"].string_value == "auto"


def test_an_ensemble_of_graphs_and_an_engine(tmp_path):
    """Its plan is copied as it is; what is on a GPU, and what never is."""
    (tmp_path / "word.plan").write_bytes(b"ptrt: opaque")
    target, bundle, lines = tmp_path / "repo", Bundle.open(PACKAGED), []
    graph_repository.write_graphs(bundle, target, Serving(gpus=(1,)), False, tmp_path / "word.plan", lines.append)
    assert "taken for an engine of this bundle, for up to 16 pictures" in lines[0] and len(lines) == 2
    assert (target / "clip4str_words" / "1" / "model.plan").read_bytes() == b"ptrt: opaque"
    configs = {path.parent.name: parsed(path.read_text()) for path in target.glob("*/config.pbtxt")}
    assert {name: config.backend or config.platform for name, config in configs.items()} == {
        "clip4str": "ensemble", "clip4str_resize": "onnxruntime", "clip4str_words": "tensorrt",
        "clip4str_text": "onnxruntime",
    }  # fmt: skip
    assert [list(group.gpus) for group in configs["clip4str_words"].instance_group] == [[1]]
    assert all(g.kind == g.KIND_CPU for name in ("resize", "text") for g in configs[f"clip4str_{name}"].instance_group)
    steps = configs["clip4str"].ensemble_scheduling.step
    known = {"pixels"}
    for step in steps:
        model = configs[step.model_name]
        assert set(step.input_map) == {one.name for one in model.input} and set(step.input_map.values()) <= known
        assert set(step.output_map) <= {one.name for one in model.output}
        known |= set(step.output_map.values())
    assert {one.name for one in configs["clip4str"].output} <= known
    assert all((path / "1").is_dir() and list((path / "1").iterdir()) for path in target.iterdir() if path.is_dir())
