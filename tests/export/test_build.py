"""The command: what it writes, when it refuses, and that nothing is ever left half-written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from clip4str.core.errors import ParityError, UsageError
from clip4str.export import bundles, parity_images, stage_files
from clip4str.export.build_engine import main
from clip4str.export.bundles import build_bundle
from clip4str.export.parity_images import sample_images
from clip4str.runtime.bundle import STAGES, Bundle

ROOT = Path(__file__).resolve().parents[2]


def everything(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def names(folder: Path) -> list[str]:
    return [p.name for p in folder.iterdir()]


@pytest.fixture
def checkpoint(golden_checkpoint) -> str:
    return str(golden_checkpoint("tiny"))


def test_builds_a_whole_bundle(checkpoint, all_crops, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([checkpoint, "--max-batch", "7", "--normalization", "clip"]) == 0
    out = capsys.readouterr().out
    assert "bundles/tiny-fp32 is ready" in out and "words agree" in out
    assert len(out.splitlines()) < 20, "quiet by default"
    bundle = Bundle.open("bundles/tiny-fp32", verify=True)
    m = bundle.manifest
    assert (m.name, m.precision, m.normalization, m.max_batch) == ("tiny-fp32", "fp32", "clip", 7)
    assert set(m.stages) == set(STAGES) and set(m.files) == {f"{s}.onnx" for s in STAGES}
    assert m.image_size == (64, 64) and m.config["d"] == 64
    assert m.checkpoint["name"] == "tiny.safetensors" and len(m.checkpoint["sha256"]) == 64
    assert m.parity["agreement"] == 1 and m.parity["images"] == len(sample_images())
    assert {"clip4str", "torch", "onnx", "python"} <= set(m.built_by)
    assert [p.name for p in (tmp_path / "bundles").iterdir()] == ["tiny-fp32"]


def test_a_model_card_comes_along_without_its_pictures(checkpoint, tmp_path):
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "tiny.safetensors").write_bytes(Path(checkpoint).read_bytes())
    (folder / "MODEL_CARD.md").write_text("# Tiny\n\n![errors](../secret.png)\nTrained on ten words.\n")
    built = build_bundle(folder / "tiny.safetensors", tmp_path / "built")
    assert (built / "MODEL_CARD.md").read_text() == "# Tiny\n\nTrained on ten words.\n"
    assert set(Bundle.open(built, verify=True).manifest.files) == {"MODEL_CARD.md", *(f"{s}.onnx" for s in STAGES)}


def test_half_by_default_has_its_own_name(checkpoint, tmp_path, monkeypatch, half_bundle):
    monkeypatch.chdir(tmp_path)
    assert main([checkpoint, "--fp16", "--min-agreement", "0", "--verbose"]) == 0
    m = Bundle.open("bundles/tiny-fp16").manifest
    assert m.precision == "fp16"
    small, large = (sum(f["bytes"] for f in b.files.values()) for b in (m, _manifest(half_bundle)))
    assert small == large, "building twice gives files of one size"


def _manifest(folder):
    return Bundle.open(folder).manifest


def test_building_again_gives_the_same_bytes(checkpoint, tiny_bundle, tmp_path):
    again = build_bundle(checkpoint, tmp_path / "again", min_agreement=0)
    assert _manifest(again).files == _manifest(tiny_bundle).files


def test_refuses_to_replace_without_force(checkpoint, tmp_path, capsys):
    target = build_bundle(checkpoint, tmp_path / "b")
    before = everything(target)
    assert main([checkpoint, "--output", str(target), "--fp16"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("clip4str build: error: ") and "--force" in captured.err
    assert captured.err.count("\n") == 1 and everything(target) == before
    assert main([checkpoint, "--output", str(target), "--force", "--max-batch", "3"]) == 0
    assert _manifest(target).max_batch == 3
    assert names(tmp_path) == ["b"]


def test_the_same_build_again_does_nothing(checkpoint, tmp_path, capsys):
    target = build_bundle(checkpoint, tmp_path / "b")
    before = {path: path.stat().st_mtime_ns for path in target.iterdir()}
    assert main([checkpoint, "--output", str(target)]) == 0
    assert "up to date" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in target.iterdir()} == before
    assert main([checkpoint, "--output", str(target), "--force"]) == 0
    assert {path: path.stat().st_mtime_ns for path in target.iterdir()} != before
    (target / "text.onnx").write_bytes(b"damaged")
    assert main([checkpoint, "--output", str(target)]) == 2 and "--force" in capsys.readouterr().err


def test_an_empty_folder_may_be_built_into(checkpoint, tmp_path):
    (tmp_path / "b").mkdir()
    assert build_bundle(checkpoint, tmp_path / "b") == tmp_path / "b"


@pytest.mark.parametrize("kind", ["foreign folder", "file", "link"])
def test_force_never_removes_what_is_no_bundle(checkpoint, tmp_path, kind):
    target = tmp_path / "b"
    if kind == "foreign folder":
        target.mkdir()
        (target / "thesis.txt").write_text("years of work")
    elif kind == "file":
        target.write_text("years of work")
    else:
        (tmp_path / "elsewhere").mkdir()
        target.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match="not a"):
        build_bundle(checkpoint, target, force=True)
    assert os.path.lexists(target) and not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("failure", [OSError("disk full"), KeyboardInterrupt(), MemoryError()])
@pytest.mark.parametrize("where", ["stage_graph", "check_parity", "write_manifest"])
@pytest.mark.parametrize("existing", [True, False])
def test_interrupted_builds_leave_no_trace(checkpoint, tiny_bundle, tmp_path, monkeypatch, failure, where, existing):
    target = tmp_path / "b"
    if existing:
        target.mkdir()
        for name, data in everything(tiny_bundle).items():
            (target / name).write_bytes(data)
    before = everything(tmp_path)
    calls = []

    def fail(*args, **kwargs):
        calls.append(args)
        if where != "stage_graph" or len(calls) == 3:
            raise failure
        return original(*args, **kwargs)

    place = stage_files if where == "stage_graph" else bundles
    original = getattr(place, where)
    monkeypatch.setattr(place, where, fail)
    with pytest.raises(type(failure)):
        build_bundle(checkpoint, target, force=True)
    assert calls and everything(tmp_path) == before
    assert names(tmp_path) == (["b"] if existing else [])


def test_what_a_killed_build_left_is_removed(checkpoint, tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    for name in (f".b.building-{process.pid}", f".b.old-{process.pid}", ".other.building-1", ".b.building-x"):
        (tmp_path / name).mkdir()
    build_bundle(checkpoint, tmp_path / "b")
    kept = [".b.building-x", ".other.building-1", "b"]
    assert sorted(names(tmp_path)) == sorted([*kept, f".b.old-{process.pid}"]), "it may be the only copy"
    build_bundle(checkpoint, tmp_path / "b", force=True)
    assert sorted(names(tmp_path)) == kept


def test_a_terminated_build_tidies_up(checkpoint, tmp_path):
    script = (
        "import os, signal, sys; from clip4str.export import build_engine as b, bundles;"
        "bundles.check_parity = lambda *a: os.kill(os.getpid(), signal.SIGTERM); sys.exit(b.main(sys.argv[1:]))"
    )
    command = [sys.executable, "-c", script, checkpoint, "--output", str(tmp_path / "b")]
    run = subprocess.run(command, capture_output=True, text=True)
    assert run.returncode == 130 and "nothing was written" in run.stderr and not names(tmp_path)


def test_interrupting_the_command(checkpoint, tmp_path, monkeypatch, capsys):
    def interrupt(*args):
        raise KeyboardInterrupt

    monkeypatch.setattr(bundles, "check_parity", interrupt)
    assert main([checkpoint, "--output", str(tmp_path / "b")]) == 130
    assert "nothing was written" in capsys.readouterr().err and not names(tmp_path)


def test_a_bundle_that_reads_differently_is_not_written(checkpoint, tmp_path, monkeypatch, capsys):
    original = stage_files.stage_graph

    def spoil(model, stage, *how):
        graph = original(model, stage, *how)
        if stage == "text":
            name = "clip_model.text_projection.weight"
            graph.weights[name] = -graph.weights[name]
        return graph

    monkeypatch.setattr(stage_files, "stage_graph", spoil)
    with pytest.raises(ParityError, match="worst stage: text"):
        build_bundle(checkpoint, tmp_path / "b")
    assert main([checkpoint, "--output", str(tmp_path / "b")]) == 2
    assert "worst stage: text" in capsys.readouterr().err
    assert not names(tmp_path)


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--max-batch", "0"], "largest batch"),
        (["--max-batch", "many"], "--max-batch"),
        (["--min-agreement", "1.5"], "share from 0 to 1"),
        (["--image-size", "64"], "HxW"),
        (["--image-size", "32x32"], "patches"),
        (["--normalization", "none"], "--normalization"),
        (["--fp16", "--fp32"], "not allowed with"),
        (["--charset-test", "äö"], "not trained for"),
        (["--sample-images", "nowhere"], "no such folder"),
        (["--colour"], "--colour"),
        (["another"], "another"),
    ],
)
def test_bad_arguments(checkpoint, tmp_path, monkeypatch, capsys, arguments, message):
    monkeypatch.chdir(tmp_path)
    assert main([checkpoint, *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("clip4str build: error: ") and message in error and error.count("\n") == 1
    assert not names(tmp_path)


def test_bad_checkpoints(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty.pt").touch()
    assert main(["empty.pt"]) == 2 and "empty" in capsys.readouterr().err
    assert main(["missing.pt"]) == 2 and "does not exist" in capsys.readouterr().err
    monkeypatch.setattr(bundles, "BUNDLED", tmp_path / "nothing.safetensors")
    assert main([]) == 2 and "no bundled checkpoint" in capsys.readouterr().err
    assert names(tmp_path) == ["empty.pt"]


def test_own_sample_images(checkpoint, tmp_path):
    folder = tmp_path / "crops"
    folder.mkdir()
    with pytest.raises(UsageError, match="no images"):
        sample_images(folder)
    for i in range(3):
        noise = np.random.default_rng(i).integers(0, 256, (20, 50, 3)).astype(np.uint8)
        Image.fromarray(noise).save(folder / f"{i}.png")
    (folder / "labels.txt").write_text("not an image")
    target = build_bundle(checkpoint, tmp_path / "b", sample_folder=folder)
    assert _manifest(target).parity["images"] == 3
    (folder / "4.png").write_text("nor is this")
    assert main([checkpoint, "--output", str(tmp_path / "c"), "--sample-images", str(folder)]) == 2


def test_bundled_samples_are_always_the_same():
    first, second = ([np.asarray(i) for i in sample_images()] for _ in range(2))
    assert len(first) >= 32 and all(np.array_equal(a, b) for a, b in zip(first, second))
    assert all(i.ndim == 3 and i.dtype == np.uint8 and i.std() > 5 for i in first)


def test_no_bundled_samples(tmp_path, monkeypatch):
    monkeypatch.setattr(parity_images, "BUNDLED_CROPS", tmp_path / "gone")
    with pytest.raises(UsageError, match=r"no images.*--sample-images"):
        sample_images()


def test_manifests_name_no_places(tiny_bundle):
    text = (tiny_bundle / "manifest.json").read_text()
    assert str(tiny_bundle.parent) not in text and str(ROOT) not in text
    assert json.loads(text)["format_version"] >= 1


def test_the_script_runs_by_path(tmp_path):
    run = subprocess.run(
        [sys.executable, str(ROOT / "export" / "build_engine.py"), "missing.pt"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    assert run.returncode == 2 and run.stderr.startswith("clip4str build: error: missing.pt")
