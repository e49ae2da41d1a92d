"""clip4str info, and what a file or folder that is no bundle is called."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from clip4str.core.cli import main
from clip4str.core.packaged import PACKAGED

CROP = Path(__file__).resolve().parents[2] / "export" / "sample_crops" / "08-ache.jpg"


def int8(manifest):
    """As the int8 build writes it for a network of twelve layers."""
    units = {f"image.{i}.{part}": {"type": "s8", "scale": 0.1, "lost": 0.0} for i in range(12) for part in "abcd"}
    manifest["precision"] = "int8"
    manifest["quantization"] = {
        "scheme": "static", "target": "cpu", "weights": "s8", "kept": [f"image.{i}" for i in range(30)],
        "calibration": {"crops": 500}, "smoothing": units,
        "gate": {"attempts": [{"name": f"int8, {i} of 12", "drop": 0.1} for i in range(13)], "rows": [["a", 1]] * 40},
    }  # fmt: skip


def test_info_of_an_int8_bundle_fits_a_screen_and_says_nothing_twice(tmp_path, capsys):
    folder = shutil.copytree(PACKAGED, tmp_path / "eight")
    manifest = json.loads((folder / "manifest.json").read_text())
    int8(manifest)
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert main(["info", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) <= 80 and max(map(len, lines)) < 200
    assert sum("0123456789abc" in line and "XYZ" in line for line in lines) == 1, "the charset stands once"
    assert any("48" in line or "more (--json)" in line for line in lines)
    assert main(["info", str(folder), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["quantization"] == manifest["quantization"]


def test_a_charset_of_thousands_of_characters_is_cut(tmp_path, capsys):
    folder = shutil.copytree(PACKAGED, tmp_path / "chinese")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["charset"] = "".join(map(chr, range(0x4E00, 0x4E00 + 6000)))
    (folder / "manifest.json").write_text(json.dumps(manifest))
    assert main(["info", str(folder)]) == 0
    out = capsys.readouterr().out
    assert "(6000 characters; --json)" in out and max(map(len, out.splitlines())) < 250


WITHOUT_TORCH = (
    "import sys; sys.modules['torch'] = None; from clip4str.core.cli import main; sys.exit(main(sys.argv[1:]))"
)


def without_torch(*arguments, cwd):
    command = [sys.executable, "-c", WITHOUT_TORCH, *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True)


def files(home):
    (home / "photo.jpg").write_bytes(CROP.read_bytes())
    (home / "photo").write_bytes(CROP.read_bytes())
    (home / "notes.txt").write_text("a list of things to do")
    (home / "manifest.json").write_text("{}")
    (home / "image.onnx").write_bytes(b"\x08\x08")
    (home / "empty").mkdir()
    (home / "run").mkdir()
    (home / "run" / "last.ckpt").write_bytes(b"PK\x03\x04")
    (home / "words").mkdir()
    (home / "words" / "data.mdb").write_bytes(b"")
    (home / "many" / "mine").mkdir(parents=True)
    (home / "many" / "mine" / "manifest.json").write_text("{}")


@pytest.mark.parametrize("command", ["info", "read", "build"])
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("photo.jpg", "is a JPEG picture, neither a bundle nor a checkpoint; to read it: clip4str read photo.jpg"),
        ("photo", "is a JPEG picture"),
        ("notes.txt", "is neither a bundle (a folder) nor a checkpoint (.ckpt"),
        ("manifest.json", "is a bundle's manifest; name its folder"),
        ("image.onnx", "is one file of a bundle; name its folder"),
        ("empty", "not a bundle, it has no manifest.json; it is empty"),
        ("run", "not a bundle, it has no manifest.json; it holds a checkpoint: run/last.ckpt"),
        ("words", "not a bundle, it has no manifest.json; it is a data set (LMDB)"),
        ("many", "not a bundle, it has no manifest.json; it holds one: many/mine"),
    ],
)
def test_a_file_or_folder_that_is_no_bundle_is_called_what_it_is(command, name, message, tmp_path, monkeypatch, capsys):
    files(tmp_path)
    monkeypatch.chdir(tmp_path)
    assert main([command, *(["--bundle", name, "photo.jpg"] if command == "read" else [name])]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"clip4str {command}: error: {name}: ") and message in error and error.count("\n") == 1


@pytest.mark.parametrize("arguments", [["info", "photo.jpg"], ["read", "--bundle", "photo.jpg", "photo.jpg"],
                                       ["build", "photo.jpg"], ["build", "empty"]])  # fmt: skip
def test_it_is_called_so_without_torch_too(arguments, tmp_path):
    files(tmp_path)
    done = without_torch(*arguments, cwd=tmp_path)
    assert done.returncode == 2 and "torch" not in done.stderr and done.stderr.count("\n") == 1, done.stderr
    assert "JPEG" in done.stderr or "not a bundle" in done.stderr


@pytest.mark.parametrize("command", ["read", "info", "build", "train", "eval", "bench"])
def test_help_of_every_command_without_torch(command, tmp_path):
    done = without_torch(command, "--help", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "") and f"usage: clip4str {command}" in done.stdout


def test_training_without_torch_says_what_to_install(tmp_path):
    done = without_torch("train", "--data", "words", "--output", "run", "--steps", "5", cwd=tmp_path)
    assert done.returncode == 2 and "pip install 'clip4str[train]'" in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())
