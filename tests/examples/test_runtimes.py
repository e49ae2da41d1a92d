"""The same file on other runtimes, and on versions of ONNX Runtime from the oldest that we allow: the same words."""

from __future__ import annotations

import json

import numpy as np
import pytest
from examples_run import OTHER_RUNTIMES
from PIL import Image

from clip4str.benchmarks.runtimes import FORMS, main, read_with
from clip4str.core.packaged import PACKAGED
from clip4str.runtime.images import load_image


def assert_words(found, words, form):
    settled = [(each, word) for each, word in zip(found, words, strict=True) if each["settled"]]
    assert len(settled) == len(words) if form != "fixed" else len(settled) > 0.7 * len(words)
    assert [each["word"] for each, _ in settled] == [word.text for _, word in settled]
    for each, word in settled:
        assert each["confidence"] == pytest.approx(word.confidence, abs=0.01)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("name", ["openvino", *OTHER_RUNTIMES])
def test_other_runtimes_read_the_same_words(needs, exported, crops, words, tmp_path, name, form):
    pictures = [load_image(crop) for crop in crops]
    found = read_with(name.split("-")[0], needs(name), exported(FORMS[form]), pictures, tmp_path)
    assert_words(found, words, form)
    assert found[0]["version"] in name or name == "openvino"


def test_openvino_merges_byte_pairs_of_every_rank(needs, exported, tmp_path):
    """Noise reads as odd captions, whose pairs are rare ones: beyond rank 1023 OpenVINO once took others."""
    random = np.random.default_rng(0)
    pictures = [Image.fromarray(random.integers(0, 256, (8, 24, 3), np.uint8)).resize((96, 32)) for _ in range(24)]
    file = exported(FORMS["exact"])
    ours, theirs = (read_with(kind, packages, file, pictures, tmp_path)
                    for kind, packages in (("onnxruntime", None), ("openvino", needs("openvino"))))  # fmt: skip
    assert [each["word"] for each in theirs] == [each["word"] for each in ours]
    assert sum(len(each["word"]) > 3 for each in ours) > 5


def test_the_table_is_made(needs, tmp_path, capsys):
    folder = tmp_path / "runtimes"
    folder.mkdir()
    (folder / "openvino").symlink_to(needs("openvino"))
    crops = tmp_path / "crops"
    crops.mkdir()
    Image.new("RGB", (90, 30), "white").save(crops / "a.png")
    output = tmp_path / "figures.json"
    command = ["--bundle", PACKAGED, "--folder", folder, "--words", crops, "--json", output]
    assert main([str(part) for part in command]) == 0
    assert "| OpenVINO" in capsys.readouterr().out
    rows = json.loads(output.read_text(encoding="utf-8"))["rows"]
    assert len(rows) == 6 and all(row["equal"] == row["settled"] for row in rows)
