"""Confidence calibrated by temperature: what is done to it, and that nothing else of a word changes."""

from __future__ import annotations

import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pytest

from clip4str.core.calibration import calibrated, is_temperature
from clip4str.core.cli import main
from clip4str.core.errors import BundleError, NonFiniteError
from clip4str.core.packaged import PACKAGED
from clip4str.runtime import Recognizer


def expected(confidence: float, temperature: float) -> float:
    """sigmoid(logit(c) / T), in the words of the paper and not of the code."""
    logit = math.log(confidence) - math.log1p(-confidence)
    return math.exp(logit / temperature) / (1 + math.exp(logit / temperature))


def uncalibrated(recognizer: Recognizer, images: list[np.ndarray]) -> list[float]:
    return [float(c) for c in recognizer.reading(recognizer.prepare(images)).confidence]


@pytest.fixture
def with_temperature(tiny_bundle, tmp_path):
    """with_temperature(2.0) -> a copy of the tiny bundle whose manifest says so; None: says nothing of it"""

    def make(value):
        folder = tmp_path / f"bundle-{len(list(tmp_path.iterdir()))}"
        shutil.copytree(tiny_bundle, folder)
        manifest = json.loads((folder / "manifest.json").read_text())
        if value is None:
            del manifest["config"]["temperature"]
        else:
            manifest["config"]["temperature"] = value
        (folder / "manifest.json").write_text(json.dumps(manifest))
        return folder

    return make


@pytest.mark.parametrize("temperature", [0.2, 0.7, 1.5, 20.0])
def test_log_odds_are_divided_by_the_temperature(temperature):
    values = np.array([1e-30, 1e-6, 0.01, 0.3, 0.5, 0.8, 0.999, 0.9999999], np.float32)
    found = calibrated(values, temperature)
    assert found.dtype == np.float64
    np.testing.assert_allclose(found, [expected(float(v), temperature) for v in values], rtol=1e-9)
    assert (np.diff(found) > 0).all(), "the order stays"
    assert found[4] == 0.5, "as likely right as wrong stays so"


@pytest.mark.parametrize("temperature", [0.2, 1.0, 3.0, 20.0])
@pytest.mark.filterwarnings("error")
def test_what_is_certain_or_no_probability_stays(temperature):
    edges = np.array([0, 1, np.nan, 1.0000001, np.float32(1e-45), np.nextafter(np.float32(1), np.float32(0))], "f4")
    found = calibrated(edges, temperature)
    np.testing.assert_array_equal(found[:4], edges[:4].astype(found.dtype))
    assert 0 <= found[4] < 0.5 < found[5] <= 1


def test_temperature_one_gives_the_very_numbers(with_temperature, golden):
    values = np.random.default_rng(0).random(1000, np.float32)
    assert calibrated(values, 1.0) is values
    images = list(golden("tiny")["images"])
    silent, one = (Recognizer.load(with_temperature(value), threads=1) for value in (None, 1.0))
    assert silent.manifest.temperature == one.manifest.temperature == 1.0
    assert silent.read(images) == one.read(images)


@pytest.mark.parametrize("temperature", [0.5, 3])
def test_only_the_confidence_of_words_changes(with_temperature, golden, temperature):
    images = list(golden("tiny")["images"])
    before = Recognizer.load(with_temperature(None), threads=1).read(images)
    recognizer = Recognizer.load(with_temperature(temperature), threads=1)
    after = recognizer.read(images)
    assert [(w.text, w.char_confidences) for w in after] == [(w.text, w.char_confidences) for w in before]
    own = [c for part in (images[:16], images[16:]) if part for c in uncalibrated(recognizer, part)]
    np.testing.assert_allclose([w.confidence for w in before], own, atol=1e-6)
    np.testing.assert_allclose([w.confidence for w in after], [expected(c, temperature) for c in own], atol=1e-6)
    assert sum(abs(new.confidence - old.confidence) > 0.01 for new, old in zip(after, before)) >= 3
    ranked = [after[k].confidence for k in np.argsort(own)]
    assert ranked == sorted(ranked)


def test_an_empty_word_is_calibrated_like_any_other(with_temperature, golden, monkeypatch):
    recognizer = Recognizer.load(with_temperature(2.0), threads=1)
    reading = recognizer.reading(recognizer.prepare([golden("tiny")["images"][0]]))
    probs = np.ones_like(reading.probs)
    probs[0, 0] = 0.9
    empty = replace(reading, ids=np.zeros_like(reading.ids), probs=probs)
    monkeypatch.setattr(recognizer, "reading", lambda pixels: empty)
    (word,) = recognizer.read([golden("tiny")["images"][0]])
    assert (word.text, word.char_confidences) == ("", ())
    assert word.confidence == pytest.approx(0.75, abs=1e-6), "odds of 9 to 1, halved as logarithms: 3 to 1"


def test_a_confidence_that_is_no_number_is_no_word(with_temperature, golden, monkeypatch):
    recognizer = Recognizer.load(with_temperature(2.0), threads=1)
    reading = recognizer.reading(recognizer.prepare([golden("tiny")["images"][0]]))
    broken = replace(reading, probs=np.full_like(reading.probs, np.nan))
    monkeypatch.setattr(recognizer.backend, "read", lambda driver, pixels: broken)
    with pytest.raises(NonFiniteError, match="not finite"):
        recognizer.read([golden("tiny")["images"][0]])


@pytest.mark.parametrize("shape", [(32, 128), (64, 64), (128, 32), (20, 300)])
def test_a_blank_picture_of_any_shade_and_shape_has_no_word(shape):
    """Of the bundled network; README says so. A white one was once SALE, with 77 %."""
    blank = [np.full((*shape, 3), shade, np.uint8) for shade in (0, 60, 128, 200, (255, 0, 0), (250, 220, 30), 255)]
    words = Recognizer.load(PACKAGED, threads=1).read(blank)
    assert [word.text for word in words] == [""] * len(blank) and min(word.confidence for word in words) > 0.9


@pytest.mark.parametrize(
    "value", [0, -1, 0.19, 20.1, 1e300, 10**400, float("nan"), float("inf"), "2", True, [1.5], {"a": 1}]
)
def test_temperatures_that_cannot_be_are_refused_in_one_line(with_temperature, value):
    assert not is_temperature(value)
    why = r"temperature is .*, expected 0\.2 to 20|damaged \((a number of \d+ digits|\w+ is no number)\)"
    with pytest.raises(BundleError, match=rf"manifest\.json: ({why})") as caught:
        Recognizer.load(with_temperature(value), threads=1)
    assert "\n" not in str(caught.value)


def test_a_temperature_of_null_is_refused(with_temperature):
    folder = with_temperature(2.0)
    manifest = folder / "manifest.json"
    manifest.write_text(manifest.read_text().replace('"temperature": 2.0', '"temperature": null'))
    with pytest.raises(BundleError, match="temperature is None"):
        Recognizer.load(folder, threads=1)


def test_a_checkpoint_carries_it_into_its_bundle_and_to_the_torch_backend(random_model, tmp_path, capsys):
    from clip4str.export.bundles import build_bundle
    from clip4str.model import save_checkpoint

    model = random_model(3)
    images = [np.random.default_rng(k).integers(0, 256, (32, 64, 3), np.uint8) for k in range(3)]
    save_checkpoint(model, tmp_path / "plain.safetensors")
    plain = Recognizer.load(tmp_path / "plain.safetensors", device="cpu")
    own, texts = uncalibrated(plain, images), [word.text for word in plain.read(images)]
    model.config = replace(model.config, temperature=2.5)
    save_checkpoint(model, tmp_path / "net.safetensors")
    bundle = build_bundle(tmp_path / "net.safetensors", tmp_path / "bundle", min_agreement=0, torch_weights=True)
    assert json.loads((bundle / "manifest.json").read_text())["config"]["temperature"] == 2.5
    ways = [(bundle, "onnxruntime"), (bundle, "torch"), (tmp_path / "net.safetensors", "torch")]
    for path, backend in ways:
        recognizer = Recognizer.load(path, backend, threads=1, device="cpu" if backend == "torch" else None)
        assert recognizer.manifest.temperature == 2.5
        words = recognizer.read(images)
        assert [word.text for word in words] == texts
        want = [expected(c, 2.5) for c in own]
        np.testing.assert_allclose([word.confidence for word in words], want, rtol=1e-3, atol=1e-6)
    assert max(want) > 10 * max(own)
    for path in (bundle, tmp_path / "net.safetensors"):
        assert main(["info", str(path)]) == 0
        assert "calibrated, temperature 2.5" in capsys.readouterr().out
    assert main(["info", str(tmp_path / "plain.safetensors")]) == 0
    assert "the network's own, not calibrated" in capsys.readouterr().out
