"""clip4str export, and build --single-file, as a user types them."""

from __future__ import annotations

import json
import shutil

import onnxruntime
import pytest

from clip4str.core.cli import main
from clip4str.core.errors import ParityError
from clip4str.core.packaged import PACKAGED
from clip4str.export.single_file import check
from clip4str.export.single_file.check import Check
from clip4str.model import save_checkpoint


def run(capsys, *arguments: object) -> tuple[int, str, str]:
    code = main([str(argument) for argument in arguments])
    out, err = capsys.readouterr()
    return code, out, err


def test_export_writes_a_file_that_onnxruntime_reads(capsys, tmp_path, few_crops):
    file = tmp_path / "word.onnx"
    code, out, err = run(
        capsys, "export", PACKAGED, "--output", file, "--resize", "--strings", "--sample-images", few_crops
    )
    assert code == 0 and not err and "8 of 8 settled words are the bundle's" in out and f"{file}: " in out
    session = onnxruntime.InferenceSession(str(file))
    shapes = {value.name: value.shape for value in (*session.get_inputs(), *session.get_outputs())}
    assert shapes == {
        "pixels": ["N", "height", "width", 3], "ids": ["N", 26], "probs": ["N", 26], "confidence": ["N"],
        "length": ["N"], "settled": ["N"], "text": ["N"],
    }  # fmt: skip
    assert "Apache-2.0" in session.get_modelmeta().custom_metadata_map["license"]
    assert [path.name for path in tmp_path.iterdir()] == ["word.onnx"]


def test_build_writes_bundle_and_file(capsys, golden_checkpoint, few_crops, tmp_path):
    file = tmp_path / "word.onnx"
    how = ["--output", tmp_path / "bundle", "--single-file", file, "--sample-images", few_crops, "--min-agreement", "0"]
    code, out, err = run(capsys, "build", golden_checkpoint("tiny"), *how)
    assert code == 0 and not err and file.is_file() and (tmp_path / "bundle" / "manifest.json").is_file()
    assert "settled words" in out
    code, _, err = run(capsys, "build", golden_checkpoint("tiny"), *how)
    assert code == 2 and "exists; --force" in err


def test_a_charset_that_no_file_can_encode_is_refused_before_the_build(capsys, tmp_path, random_model):
    save_checkpoint(random_model(charset="0123456789abcσ"), tmp_path / "net.safetensors")
    how = ["--output", tmp_path / "bundle", "--single-file", tmp_path / "word.onnx", "--charset-test", "abcσ"]
    code, out, err = run(capsys, "build", tmp_path / "net.safetensors", *how)
    assert code == 2 and not out and err.count("\n") == 1
    assert "'σ' (U+03C3), which change with their neighbours" in err and "--charset-test" in err
    assert [path.name for path in tmp_path.iterdir()] == ["net.safetensors"]


@pytest.mark.parametrize("command", ["export", "build"])
def test_fp8_is_refused_before_any_work(command, capsys, tmp_path, golden_checkpoint):
    before = golden_checkpoint("tiny")
    if command == "export":
        before = tmp_path / "fp8"
        shutil.copytree(PACKAGED, before)
        manifest = before / "manifest.json"
        manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "precision": "fp8"}))
    more = ["--output"] if command == "export" else ["--fp8", "--output", tmp_path / "bundle", "--single-file"]
    code, out, err = run(capsys, command, before, *more, tmp_path / "word.onnx")
    assert code == 2 and not out and err.count("\n") == 1, err
    assert "fp8 bundles cannot be one file: export the fp16 or int8 bundle" in err
    assert {path.name for path in tmp_path.iterdir()} <= {"fp8"}


def test_the_bundle_taken_is_said_where_none_was_named(capsys, tmp_path, monkeypatch, few_crops):
    monkeypatch.delenv("CLIP4STR_BUNDLE", raising=False)
    monkeypatch.chdir(tmp_path)
    how = ["--force", "--output", tmp_path / "w.onnx", "--sample-images", few_crops, "--passes", "1,1"]
    code, _, err = run(capsys, "export", *how)
    assert code == 0 and err == f"no bundle under ./bundles: taking the packaged network, {PACKAGED.name}\n"
    shutil.copytree(PACKAGED, tmp_path / "bundles" / "mine")
    code, _, err = run(capsys, "export", *how)
    assert code == 0 and err == "no bundle given: taking bundles/mine\n"


@pytest.mark.parametrize("arguments, said", [
    (["--output", "word.txt"], "must end in .onnx"),
    (["--output", "there.onnx"], "exists; --force"),
    (["--output", "no/such/word.onnx"], "folder does not exist"),
    (["--output", "w.onnx", "--passes", "3"], "two numbers"),
    (["--output", "w.onnx", "--passes", "0,2"], "from 1 to"),
    (["--output", "w.onnx", "--passes", "3,2", "--decode", "nar"], "those of decode ar"),
    (["--output", "w.onnx", "--passes", "3,2", "--static"], "give one of them"),
    (["--output", "w.onnx", "--refine", "99"], "number of rounds"),
    (["--output", "w.onnx", "--min-agreement", "2"], "share from 0 to 1"),
    (["--output", "w.onnx", "--charset-test", "ΑΒ"], "not trained"),
    (["--output", "w.onnx", "--sample-images", "nowhere"], "no such folder"),
])  # fmt: skip
def test_what_cannot_be_is_said_in_a_line(capsys, tmp_path, monkeypatch, arguments, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "there.onnx").write_bytes(b"mine")
    code, _, err = run(capsys, "export", PACKAGED, *arguments)
    assert code == 2 and said in err and err.count("\n") == 1
    assert [path.name for path in tmp_path.iterdir()] == ["there.onnx"]


def test_a_checkpoint_is_to_be_built_first(capsys, golden_checkpoint, tmp_path):
    code, _, err = run(capsys, "export", golden_checkpoint("tiny"), "--output", tmp_path / "w.onnx")
    assert code == 2 and "clip4str build" in err and "--single-file" in err


def test_a_file_that_reads_differently_is_not_written(capsys, tmp_path, monkeypatch, few_crops):
    monkeypatch.setattr(check, "check_file", lambda *_: Check(8, 8, [("word", "ward")], 0.1))
    (tmp_path / "w.onnx").write_bytes(b"before")
    code, out, err = run(
        capsys, "export", PACKAGED, "--output", tmp_path / "w.onnx", "--force", "--sample-images", few_crops
    )
    assert code == 2 and "7 of 8 settled words" in err and "'word' became 'ward'" in out
    assert (tmp_path / "w.onnx").read_bytes() == b"before" and len(list(tmp_path.iterdir())) == 1


def test_unsettled_words_do_not_count():
    Check(8, 0, [], 0.0).check(0.99)
    with pytest.raises(ParityError):
        Check(8, 2, [("a", "b")], 0.0).check(0.99)
