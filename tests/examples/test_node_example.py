"""examples/node, as its README says."""

from __future__ import annotations

import json
import subprocess

import pytest
from PIL import Image

from clip4str.export.single_file.write import Options


@pytest.fixture(scope="module")
def read(needs):
    """read(file, *pictures) -> exit code, lines of stdout, stderr"""

    def run(*arguments: object) -> tuple[int, list[str], str]:
        command = ["node", "read.mjs", *map(str, arguments)]
        done = subprocess.run(command, cwd=needs("node"), capture_output=True, text=True, timeout=120)
        return done.returncode, done.stdout.splitlines(), done.stderr

    return run


def test_words_are_recognizers(read, exported, crops, words):
    code, lines, errors = read(exported(Options(resize=True, strings=True)), *crops)
    found = [json.loads(line) for line in lines]
    assert code == 0 and errors == ""
    assert [each["picture"] for each in found] == [str(crop) for crop in crops]
    assert [each["word"] for each in found] == [word.text for word in words]
    for each, word in zip(found, words):
        assert each["settled"] and each["confidence"] == pytest.approx(word.confidence, abs=0.01)


def test_grey_transparent_and_turned_pictures_are_read(read, exported, crops, words, tmp_path):
    with Image.open(crops[0]) as crop:
        crop.convert("L").save(tmp_path / "grey.png")
        crop.convert("RGBA").save(tmp_path / "rgba.png")
        turned = crop.transpose(Image.Transpose.ROTATE_90)
        exif = Image.Exif()
        exif[0x0112] = 6
        turned.save(tmp_path / "turned.jpg", exif=exif, quality=95)
    paths = [tmp_path / name for name in ("grey.png", "rgba.png", "turned.jpg")]
    code, lines, _ = read(exported(Options(resize=True, strings=True)), *paths)
    assert code == 0 and [json.loads(line)["word"] for line in lines] == [words[0].text] * 3


def test_what_cannot_be_read_is_a_line_and_the_others_are_read(read, exported, crops, tmp_path):
    (tmp_path / "no.jpg").write_bytes(b"no picture")
    code, lines, errors = read(exported(Options(resize=True, strings=True)), tmp_path / "no.jpg", crops[0])
    assert code == 2 and len(lines) == 1 and errors.count("\n") == 1 and "no.jpg: " in errors
    code, lines, errors = read(exported(Options()), crops[0])
    assert code == 2 and not lines and "--resize --strings" in errors and errors.count("\n") == 1
