"""examples/deepstream: the file that nvinfer gets, and the parser of its outputs, built against a stand-in of
DeepStream's header. DeepStream itself needs a GPU and cannot be had here."""

from __future__ import annotations

import configparser
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

from clip4str.core.packaged import PACKAGED
from clip4str.export.single_file.write import Options
from clip4str.runtime import Recognizer

HERE = Path(__file__).resolve().parent
SOURCE = HERE.parents[1] / "examples" / "deepstream"


def prepare(file: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, SOURCE / "prepare.py", file, folder]
    return subprocess.run(command, capture_output=True, text=True, timeout=120)


@pytest.fixture(scope="module")
def built(exported, tmp_path_factory):
    """The folder with words.onnx, the parser and a program that calls it as nvinfer does."""
    folder = tmp_path_factory.mktemp("deepstream")
    done = prepare(exported(Options(passes=(3, 2))), folder)
    assert done.returncode == 0, done.stderr
    compiler = ["g++", "-std=c++17", "-Wall", "-Wextra", "-Werror", f"-I{HERE / 'c'}", f"-I{folder}"]
    for more in (["-fPIC", "-shared", SOURCE / "parse_words.cpp", "-o", folder / "libclip4str_words.so"],
                 [HERE / "c" / "parse_main.cpp", "-ldl", "-o", folder / "parse_main"]):  # fmt: skip
        done = subprocess.run([*compiler, *more], capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
    return folder


def parsed(folder: Path, rows: list[tuple[int, int, float, list[int]]], threshold: float = 0) -> tuple[list, str]:
    text = "\n".join(f"{n} {s} {c} {' '.join(map(str, ids))}" for n, s, c, ids in rows)
    command = [folder / "parse_main", folder / "libclip4str_words.so", "26", str(threshold)]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return [line.split("\t") for line in done.stdout.splitlines()], done.stderr


def test_objects_get_recognizers_words(built, crops, words):
    with Recognizer.load(PACKAGED, "onnxruntime") as recognizer:
        pixels = recognizer.prepare(crops)
    session = onnxruntime.InferenceSession(str(built / "words.onnx"))
    names = [value.name for value in session.get_outputs()]
    found = dict(zip(names, session.run(names, {"pixels": pixels})))
    rows = [(found["length"][i, 0], found["settled"][i, 0], found["confidence"][i, 0], found["ids"][i].tolist())
            for i in range(len(crops))]  # fmt: skip
    labels, errors = parsed(built, rows)
    assert errors == "" and len(labels) == len(crops)
    settled = [(label, word) for label, word, row in zip(labels, words, rows) if row[1]]
    assert len(settled) > 0.7 * len(crops)
    for label, word in settled:
        assert label[0] == "1" and label[1] == label[3] == word.text
        assert float(label[2]) == pytest.approx(word.confidence, abs=1e-3)
    assert all(label == ["1"] for label, row in zip(labels, rows) if not row[1])


def test_unsure_empty_and_broken_outputs_give_no_label(built):
    ids = [11] * 26
    rows = [(3, 1, 0.1, ids), (0, 1, 0.9, ids), (27, 1, 0.9, ids), (-1, 1, 0.9, ids), (3, 1, 0.9, ids)]
    labels, _ = parsed(built, rows, 0.2)
    assert labels == [["1"], ["1"], ["1"], ["1"], ["1", "aaa", "0.900000", "aaa"]]
    labels, errors = parsed(built, [(2, 1, 0.9, [1, 95, *ids[2:]]), (2, 1, 0.9, [0, 1, *ids[2:]])])
    assert labels == [["0"], ["0"]] and "another network's" in errors


def test_every_character_reaches_the_label(built):
    charset = Recognizer.load(PACKAGED, "onnxruntime").manifest.charset
    rows = [(1, 1, 0.9, [i, *[0] * 25]) for i in range(1, len(charset) + 1)]
    labels, _ = parsed(built, rows)
    assert "".join(label[1] for label in labels) == charset


def test_what_nvinfer_takes(built):
    """By its source: no bools, and a dimension behind the batch's in every output."""
    outputs = {value.name: value.type.tensor_type for value in onnx.load(built / "words.onnx").graph.output}
    assert set(outputs) == {"ids", "confidence", "length", "settled"}
    for tensor in outputs.values():
        assert tensor.elem_type in {onnx.TensorProto.FLOAT, onnx.TensorProto.INT32} and len(tensor.shape.dim) == 2


def test_the_configuration_prepares_pixels_as_the_network_wants_them():
    parser = configparser.ConfigParser(strict=True)
    parser.read(SOURCE / "words.txt")
    said = parser["property"]
    with Recognizer.load(PACKAGED, "onnxruntime") as recognizer:
        assert said["infer-dims"] == "3;{};{}".format(*recognizer.manifest.image_size)
        gradient = np.repeat(np.arange(256, dtype=np.uint8), 3).reshape(8, 32, 3)
        picture = np.ascontiguousarray(np.tile(gradient, (4, 4, 1)))
        pixels = recognizer.prepare([picture])[0]
    offsets = np.array([float(value) for value in said["offsets"].split(";")], np.float32)
    ours = (picture - offsets) * np.float32(said["net-scale-factor"])
    np.testing.assert_allclose(ours.transpose(2, 0, 1), pixels, atol=1e-6)
    assert said["model-color-format"] == "0" and said["maintain-aspect-ratio"] == "0"


def test_another_form_is_refused(exported, tmp_path):
    for options in (Options(), Options(passes=(3, 2), uint8=True)):
        done = prepare(exported(options), tmp_path)
        assert done.returncode == 2 and "--passes 3,2" in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_tensorrts_compiler_builds_it(built):
    trt = pytest.importorskip("tensorrt_rtx")
    sys.path.append(str(HERE.parents[1] / "tests" / "export"))
    from rtx_building import rtx_build

    assert len(rtx_build(trt, built / "words.onnx", "SM89")[1]) > 20
