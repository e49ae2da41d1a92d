"""benchmarks/drafts.py: the same words both ways, and figures that are those of the passes taken."""

from __future__ import annotations

import json

import numpy as np
import pytest

from clip4str.benchmarks import drafts
from clip4str.benchmarks.forcing import ForcedBackend, Forcing
from clip4str.core.errors import UsageError
from clip4str.core.reading import Decoding
from clip4str.export.bundles import build_bundle
from clip4str.model import save_checkpoint
from clip4str.runtime import Recognizer


@pytest.fixture(scope="module")
def bundle(random_model, few_crops, tmp_path_factory):
    folder = tmp_path_factory.mktemp("drafts")
    save_checkpoint(random_model(seed=5, draft_frames=8, steps=8), folder / "net.safetensors")
    return build_bundle(folder / "net.safetensors", folder / "bundle", min_agreement=0, sample_folder=few_crops)


@pytest.fixture
def words(write_lmdb, tmp_path):
    pictures = np.random.default_rng(1).integers(0, 256, (9, 20, 50, 3), dtype=np.uint8)
    return write_lmdb(tmp_path / "data" / "SVT", [*((p, f"w{i}") for i, p in enumerate(pictures)), (b"broken", "w9")])


def test_passes_and_words_side_by_side(bundle, words, tmp_path, capsys):
    report = tmp_path / "drafts.json"
    how = ["--data", str(words.parent), "--bundle", str(bundle), "--json", str(report), "--quiet"]
    assert drafts.main(how) == 0
    said = capsys.readouterr().out
    assert "words changed: 0 of 9" in said and "| SVT |     9 |" in said
    assert "settled in up to 1, 2, 3, 4, 5 visual passes, without draft: 0.0, " in said
    (row,) = json.loads(report.read_text())["sets"]
    pictures = np.random.default_rng(1).integers(0, 256, (9, 20, 50, 3), dtype=np.uint8)
    for name, draft in (("without", False), ("with", True)):
        recognizer = Recognizer.load(bundle, "onnxruntime", threads=1, batch_size=1, decoding=Decoding(draft=draft))
        recognizer.read(list(pictures))
        assert row[name]["visual_passes"] == pytest.approx(recognizer.stats.visual_passes / 9, abs=1e-3)
        counts = row[name]["settled"]
        assert sum(counts) == 9 and np.dot(counts, np.arange(len(counts))) == recognizer.stats.visual_passes
        assert row[name]["cross_passes"] == pytest.approx(recognizer.stats.cross_passes / 9, abs=1e-3)
    assert row["changed"] == 0 and row["without"]["ms_median"] > 0 and row["confidence"] < 1e-4


def test_words_that_change_are_counted_and_named(bundle, words):
    sides = [Recognizer.load(bundle, "onnxruntime", threads=1, batch_size=1) for _ in range(2)]
    sides[1].driver.charset.decode = lambda ids: "other"
    row = drafts.measure(sides, "SVT", words, None, False)
    assert row["changed"] == 9 and row["examples"][0][1] == "other"


@pytest.mark.parametrize(("visual", "cross"), [(2, 1), (5, 4)])
def test_forced_words_take_the_passes_that_were_asked_for(bundle, visual, cross):
    recognizer = Recognizer.load(bundle, "onnxruntime", threads=1)
    driver = recognizer.driver
    backend = ForcedBackend(recognizer.backend, Forcing(6, visual, cross), driver)
    stats = backend.read(driver, np.zeros((2, 3, 32, 64), np.float32)).stats
    assert (stats.visual_passes, stats.cross_passes, stats.drafted) == (visual, cross, 0)


def test_a_bundle_without_a_head_is_refused(tiny_bundle, words):
    with pytest.raises(UsageError, match="its network has no draft head; clip4str train --draft-head adds one"):
        drafts.main(["--data", str(words.parent), "--bundle", str(tiny_bundle), "--quiet"])
