"""The same file on other runtimes, and on versions of ONNX Runtime from the oldest that we allow: the same words."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest
from examples_run import OTHER_RUNTIMES
from golden_weights import GOLDEN
from PIL import Image

from clip4str.benchmarks.runtimes import FORMS, main, read_with
from clip4str.core.bpe import BytePairTokenizer
from clip4str.core.packaged import PACKAGED
from clip4str.core.text import CHARSET_94, Charset
from clip4str.export.graph import Graph
from clip4str.export.single_file.bodies import BOOL, INT32
from clip4str.export.single_file.characters import Characters
from clip4str.export.single_file.tokens import Tokens
from clip4str.runtime.images import load_image

STEPS = 26


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


def test_openvino_merges_byte_pairs_of_every_rank(needs, tmp_path):
    """CLIP's own tokens of thousands of words, its whole vocabulary: numbers beyond 2^24 came out as others here."""
    lines = [line.split("\t") for line in (GOLDEN / "bpe.tsv").read_text(encoding="utf-8").splitlines()]
    charset, tokenizer = Charset(test=CHARSET_94), BytePairTokenizer(49408)
    ids = np.zeros((len(lines), STEPS), np.int32)
    for row, (word, _) in zip(ids, lines):
        row[: len(word)] = charset.encode(word)
    ends = np.array([[min(len(word), STEPS)] for word, _ in lines], np.int32)
    g = Graph("tokens", "fp32")
    names = g.input("ids", INT32, ("N", STEPS)), g.input("ends", INT32, ("N", 1))
    tokens, others = Tokens(tokenizer, Characters.build(charset, tokenizer), STEPS, True)(g, *names)
    g.output(tokens, "tokens", INT32, ("N", tokenizer.context))
    g.output(others, "others", BOOL, ("N", 1))
    g.save(tmp_path / "tokens.onnx", {}, "")
    np.savez(tmp_path / "given.npz", ids=ids, ends=ends)
    code = (
        "import numpy as np, openvino\n"
        "run, given = openvino.Core().compile_model('tokens.onnx', 'CPU'), np.load('given.npz')\n"
        "found = [run({k: given[k][i : i + 200] for k in given.files}) for i in range(0, len(given['ids']), 200)]\n"
        "np.savez('found.npz', **{k: np.concatenate([f[k] for f in found]) for k in ('tokens', 'others')})"
    )
    environment = {**os.environ, "PYTHONPATH": str(needs("openvino"))}
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, env=environment, check=True, timeout=300)
    found = np.load(tmp_path / "found.npz")
    right = (found["tokens"] == np.array([tokens.split() for _, tokens in lines], np.int32)).all(axis=1)
    assert (right | found["others"][:, 0]).all() and right.mean() > 0.99 and len(lines) > 1000


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
