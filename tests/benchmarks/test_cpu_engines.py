"""benchmarks/cpu_engines.py: the sample crops as a set, whose words are known."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

pytest.importorskip("openvino")

from clip4str.benchmarks import cpu_engines
from clip4str.core.errors import UsageError
from clip4str.core.packaged import PACKAGED
from clip4str.runtime import Recognizer

CROPS = sorted((Path(__file__).parents[2] / "export" / "sample_crops").glob("*.jpg"))[:12]


@pytest.fixture
def words(write_lmdb, tmp_path):
    """Eleven with what the network reads in them, and one with another label."""
    with Recognizer.load(PACKAGED, threads=1) as recognizer:
        labels = [word.text for word in recognizer.read(CROPS)]
    labels[3] = "other"
    return write_lmdb(tmp_path / "data" / "SVT", [(crop.read_bytes(), label) for crop, label in zip(CROPS, labels)])


def test_engines_take_turns_and_words_are_compared(words, tmp_path, capsys):
    report = tmp_path / "engines.json"
    how = ["--bundle", str(PACKAGED), "--batch", "1", "3", "--repeat", "2", "--data", str(words.parent), "--quiet"]
    assert cpu_engines.main([*how, "--json", str(report)]) == 0
    said, figures = capsys.readouterr().out, json.loads(report.read_text())
    engines = [row["engine"] for row in figures["words"]]
    assert engines[:2] == ["onnxruntime", "openvino"] and "| openvino " in said
    assert [row["batch"] for row in figures["towers"]] == [1] * len(engines) + [3] * len(engines)
    assert all(row["ms"]["median"] > 0 for row in figures["towers"])
    assert [row["ratio"]["median"] for row in figures["towers"] if row["engine"] == "onnxruntime"] == [1, 1]
    for row in figures["words"][:2]:  # float32: the same words
        assert (row["words"], row["differ"], row["right"]["words"]) == (12, 0, 12)
        assert row["right"]["percent"] == pytest.approx(100 * 11 / 12, abs=0.01)


def test_words_that_an_engine_reads_otherwise_are_counted(words):
    with (
        Recognizer.load(PACKAGED, threads=1) as one,
        Recognizer.load(PACKAGED, "openvino", threads=1) as two,
    ):
        two.driver.charset.decode = lambda ids: "else"
        first, second = cpu_engines.read({"one": one, "two": two}, "SVT", words, None)
    assert (first["differ"], second["differ"], second["right"]["percent"]) == (0, 12, 0)


@pytest.mark.parametrize("option", ["--batch", "--repeat", "--threads"])
def test_nothing_is_not_timed(option):
    with pytest.raises(UsageError):
        cpu_engines.main([option, "0"])
