"""examples/cpp: built with CMake and run as its README says. PyPI's OpenVINO has headers and CMake's files; ONNX
Runtime's C++ headers come with its releases alone, so that side is built where CLIP4STR_ONNXRUNTIME names one."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from PIL import Image

from clip4str.export.single_file.write import Options

SOURCE = Path(__file__).resolve().parents[2] / "examples" / "cpp"


@pytest.fixture(scope="module", params=["openvino", "onnxruntime"])
def program(request, needs, tmp_path_factory):
    release = os.environ.get("CLIP4STR_ONNXRUNTIME", "")
    if request.param == "openvino":
        where = f"-DOpenVINO_DIR={needs('openvino') / 'openvino' / 'cmake'}"
    elif release:
        where = f"-DONNXRUNTIME={release}"
    else:
        pytest.skip("CLIP4STR_ONNXRUNTIME names no release of ONNX Runtime, which has its C++ headers")
    if shutil.which("cmake") is None:
        pytest.skip("needs CMake")
    folder = tmp_path_factory.mktemp("cpp")
    flags = "-DCMAKE_CXX_FLAGS=-Wall -Wextra -Werror"
    for command in (["cmake", "-S", str(SOURCE), "-B", str(folder), f"-DRUNTIME={request.param}", where, flags],
                    ["cmake", "--build", str(folder)]):  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert done.returncode == 0, done.stdout + done.stderr
    return folder / "read_word"


@pytest.fixture(scope="module")
def pictures(crops, tmp_path_factory):
    folder = tmp_path_factory.mktemp("ppm")
    for crop in crops:
        with Image.open(crop) as image:
            image.convert("RGB").save(folder / f"{crop.stem}.ppm")
    return sorted(folder.iterdir())


def run(*arguments: object) -> tuple[int, list[list[str]], str]:
    done = subprocess.run(list(map(str, arguments)), capture_output=True, text=True, timeout=120)
    return done.returncode, [line.split("\t") for line in done.stdout.splitlines()], done.stderr


def test_words_are_recognizers(program, exported, pictures, words):
    code, lines, errors = run(program, exported(Options(resize=True)), *pictures)
    assert code == 0 and errors == ""
    assert [line[:2] for line in lines] == [[str(p), word.text] for p, word in zip(pictures, words)]
    for line, word in zip(lines, words):
        assert len(line) == 3 and float(line[2]) == pytest.approx(word.confidence, abs=0.01)


def test_the_fixed_form_says_what_is_not_settled(program, exported, pictures, words):
    code, lines, _ = run(program, exported(Options(resize=True, passes=(3, 2))), *pictures)
    assert code == 0
    settled = [(line[1], word.text) for line, word in zip(lines, words) if line[3:] != ["not settled"]]
    assert 0.7 * len(words) < len(settled) < len(words) and all(a == b for a, b in settled)


@pytest.mark.parametrize("content, said", [
    (b"no picture", "no binary PPM"), (b"P6 9999999 1 255\n", "head is damaged"), (b"P6 0 4 255\n", "head is damaged"),
    (b"P6 16384 16384 255\n", "64 million"), (b"P6 8 8 255\nshort", "ends too early"), (b"P6 8 8 65535\n", "8 bits"),
    (b"P6 -8 8 255\n", "head is damaged"),
])  # fmt: skip
def test_damaged_pictures_are_a_line(program, exported, tmp_path, content, said):
    (tmp_path / "a.ppm").write_bytes(content)
    code, lines, errors = run(program, exported(Options(resize=True)), tmp_path / "a.ppm")
    assert code == 2 and not lines and said in errors and errors.count("\n") == 1


def test_another_file_is_a_line(program, exported, pictures, tmp_path):
    for file, said in ((exported(Options()), "--resize"), (tmp_path / "none.onnx", "none.onnx: ")):
        code, lines, errors = run(program, file, pictures[0])
        assert code == 2 and not lines and said in errors and errors.count("\n") == 1
