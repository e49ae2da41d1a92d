"""Bundles made to harm: each is one line of error, within a stated amount of memory and time."""

from __future__ import annotations

import json
import resource
import shutil
import subprocess
import sys

import pytest

from clip4str.core.cli import main
from clip4str.core.errors import BundleError, Clip4StrError
from clip4str.core.packaged import PACKAGED
from clip4str.runtime import Recognizer
from clip4str.runtime.bundle import Bundle, describe_file

MEMORY = 200 << 20  # bytes that all of these may take together, beyond what the imports took
SECONDS = 20  # of processor time, for all of them


@pytest.fixture
def folder(tmp_path):
    return shutil.copytree(PACKAGED, tmp_path / "bundle")


def edit(folder, change):
    path = folder / "manifest.json"
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def refused(folder, message):
    with pytest.raises(BundleError, match=message) as caught:
        Bundle.open(folder)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 600


NAMES = ["a" * 300, "ä" * 200, "a\0b", "a\nb", "\ud800", "a/b", "a\\b", "C:b", "manifest.json", "\x1b[2J", ""]


@pytest.mark.parametrize("name", NAMES)
def test_file_names_that_are_none(name, folder):
    edit(folder, lambda m: m["files"].update({name: {"sha256": "", "bytes": 1}}))
    refused(folder, "unsafe file name")


@pytest.mark.parametrize("name", ["x" * 300, "x\0y", "x/" * 300])
def test_folders_whose_names_are_none(name, tmp_path, capsys):
    for command in ("info", "read"):
        arguments = [name] if command == "info" else ["--bundle", name, "photo.jpg"]
        assert main([command, *arguments]) == 2
        error = capsys.readouterr().err
        assert error.startswith(f"clip4str {command}: error: ") and error.count("\n") == 1
    with pytest.raises(BundleError):
        Recognizer.load(tmp_path / name)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda m: m["files"].update({f"f{i}": {"sha256": "", "bytes": 0} for i in range(20_000)}),
            "20006 files|20005",
        ),
        (lambda m: m["stages"].update({f"s{i}": "image.onnx" for i in range(1000)}), "files, expected at most 64"),
        (lambda m: m["files"]["image.onnx"].update(bytes=10**20), "image.onnx has 100000000000000000000 bytes"),
        (lambda m: m["files"]["image.onnx"].update(bytes=True), "image.onnx has True bytes"),
        (lambda m: m["files"]["image.onnx"].update(bytes=1.0), "image.onnx has 1.0 bytes"),
        (lambda m: m.update(normalization="n" * 500_000), "unknown normalization"),
        (lambda m: m.update(format_version="v" * 500_000), "format_version"),
        (lambda m: m["config"].update(steps="s" * 500_000), "steps is"),
        (lambda m: m["config"].update(image_size="ab"), "image_height is 'a'"),
        (lambda m: m["config"].update(image_size=[32]), "damaged"),
        (lambda m: m["config"].update(patch_size=None), "damaged"),
        (lambda m: m["stages"].update({"\x1b[2J": 5}), "unsafe file name 5"),
        (lambda m: m.update(engines={"files": {"image": ["x"]}, "profile": {}}), "damaged|not among"),
    ],
)
def test_manifests_that_ask_for_much(change, message, folder):
    edit(folder, change)
    refused(folder, message)


@pytest.mark.parametrize("depth", [17, 900, 100_000])
@pytest.mark.parametrize("brackets", [("[", "]"), ('{"a":', "}")])
def test_nested_manifests(depth, brackets, folder, capsys):
    path = folder / "manifest.json"
    nested = brackets[0] * depth + "0" + brackets[1] * depth
    path.write_text(path.read_text().rstrip().removesuffix("}") + f', "comment": {nested}}}')
    refused(folder, "damaged")
    assert main(["info", str(folder), "--json"]) == 2
    assert capsys.readouterr().err.count("\n") == 1


@pytest.mark.parametrize("number", ["9" * 25, "9" * 900_000, "-" + "9" * 30, "1e999", "-1e999", "NaN", "Infinity"])
def test_numbers_that_are_too_large_or_none(number, folder):
    path = folder / "manifest.json"
    path.write_text(path.read_text().rstrip().removesuffix("}") + f', "comment": {number}}}')
    refused(folder, "damaged")


def test_info_of_lists_and_objects_of_all_kinds(folder, capsys):
    def change(m):
        m["parity"] = {"differing": [["a", "b"], {"c": 1}, 5], "rows": [{"a": 1}, 2, None], "empty": [], "none": {}}

    edit(folder, change)
    assert main(["info", str(folder)]) == 0
    assert "differing" in capsys.readouterr().out


def test_a_vocabulary_without_tokens(folder):
    edit(folder, lambda m: m["config"].update(vocabulary=3))
    with pytest.raises(Clip4StrError) as caught:
        Recognizer.load(folder, threads=1)
    assert "\n" not in str(caught.value)


def test_weights_with_impossible_shapes(folder):
    """In the file that the torch backend reads."""
    pytest.importorskip("torch")
    weights = folder / "weights.safetensors"
    header = json.dumps({"a": {"dtype": "F16", "shape": [0, 10**18, 8, 4], "data_offsets": [0, 0]}}).encode()
    weights.write_bytes(len(header).to_bytes(8, "little") + header)
    edit(folder, lambda m: m["files"].update({weights.name: describe_file(weights)}))
    with pytest.raises(BundleError) as caught:
        Recognizer.load(folder, "torch", device="cpu")
    assert "\n" not in str(caught.value)


OPEN_ALL = """
import json, resource, sys
from pathlib import Path
from clip4str.core.errors import BundleError
from clip4str.runtime.bundle import Bundle
memory, seconds, *folders = sys.argv[1:]
size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (size + int(memory),) * 2)
used = int(resource.getrusage(resource.RUSAGE_SELF).ru_utime) + 1
resource.setrlimit(resource.RLIMIT_CPU, (used + int(seconds),) * 2)
for folder in folders:
    try:
        Bundle.open(folder)
    except BundleError as error:
        print(error)
"""


def hostile(home):
    """Folders, each of which is the packaged bundle with something that costs a reader."""
    whole = json.loads((PACKAGED / "manifest.json").read_text())
    texts = {
        "deep list": "[" * 999_999,
        "deep object": '{"a":' * 190_000,
        "many keys": json.dumps({f"{i:x}": i for i in range(60_000)}),
        "many lists": "[" + "[]," * 300_000 + "[]]",
        "many digits": '{"format_version": ' + "1" * 900_000 + "}",
        "long text": json.dumps({**whole, "charset": "a" * 900_000}),
        "files": json.dumps({**whole, "files": {f"{i}": {"sha256": "", "bytes": 1} for i in range(20_000)}}),
        "no text": "\udc80" * 300_000,
    }
    for name, text in texts.items():
        folder = shutil.copytree(PACKAGED, home / name)
        (folder / "manifest.json").write_bytes(text.encode("utf-8", "surrogateescape"))
        yield folder
    graphs = {
        "many fields": b"\x08\x01" * 1_000_000,
        "many nodes": b"\x3a" + varint(2_000_000) + b"\x0a\x00" * 1_000_000,
        "many tensors": b"\x3a" + varint(2_000_000) + b"\x2a\x00" * 1_000_000,
        "nested graphs": nested_graphs(3000),
    }
    for name, graph in graphs.items():
        folder = shutil.copytree(PACKAGED, home / name)
        (folder / "image.onnx").write_bytes(graph)
        edit(folder, lambda m, folder=folder: m["files"].update({"image.onnx": describe_file(folder / "image.onnx")}))
        yield folder
    folder = shutil.copytree(PACKAGED, home / "sparse")
    with (folder / "image.onnx").open("wb") as file:
        file.truncate(3 << 30)  # takes no space on the disk
    edit(folder, lambda m: m["files"]["image.onnx"].update(bytes=3 << 30))
    yield folder


def nested_graphs(depth):
    content = b""
    for _ in range(depth):
        for tag in (b"\x32", b"\x2a", b"\x0a"):  # an attribute's graph, a node's attribute, a graph's node
            content = tag + varint(len(content)) + content
    return b"\x3a" + varint(len(content)) + content


def varint(value):
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits a process's memory as Linux does")
def test_opening_them_stays_within_memory_and_time(tmp_path):
    assert resource.getrlimit(resource.RLIMIT_AS)[1] == resource.RLIM_INFINITY
    folders = [str(folder) for folder in hostile(tmp_path)]
    command = [sys.executable, "-c", OPEN_ALL, str(MEMORY), str(SECONDS), *folders]
    run = subprocess.run(command, capture_output=True, text=True, timeout=600)
    assert run.returncode == 0, run.stderr[-500:]
    lines = run.stdout.splitlines()
    assert len(lines) == len(folders) and all(line.startswith(f) for line, f in zip(lines, folders)), run.stdout
