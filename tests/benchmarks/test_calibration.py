"""calibration.py: the temperature of made-up networks is found, and figures are what they are by hand."""

from __future__ import annotations

import json
import re
import shutil
from functools import partial

import numpy as np
import pytest

from clip4str.benchmarks import calibration
from clip4str.benchmarks.calibration import PROGRAM, Words, calibrate, read_words
from clip4str.benchmarks.calibration_figures import figures, fit_temperature, golden_section, reliability
from clip4str.core.console import run_script
from clip4str.core.errors import DataError
from clip4str.data.protocol import Protocol
from clip4str.model.checkpoint import load_checkpoint
from clip4str.runtime import Recognizer

run = partial(run_script, PROGRAM, calibration.main)


def network(temperature: float, words: int = 20_000, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Confidence and right or wrong of a network whose log-odds are `temperature` times too large."""
    chance = np.random.default_rng(seed)
    odds = chance.normal(1.0, 2.0, words)
    right = chance.random(words) < 1 / (1 + np.exp(-odds))
    return (1 / (1 + np.exp(-temperature * odds))).astype(np.float32), right


@pytest.mark.parametrize("temperature", [0.4, 1.0, 1.7, 5.0])
def test_a_known_temperature_is_found_and_lies_in_its_interval(temperature):
    confidence, right = network(temperature)
    fit = fit_temperature(confidence, right)
    assert fit.temperature == pytest.approx(temperature, rel=0.05)
    assert fit.low < temperature < fit.high < 1.1 * fit.low
    after, before = figures(confidence, right, fit.temperature), figures(confidence, right)
    assert after.nll <= before.nll and after.ece < 0.015
    for other in (0.97, 1.03):
        assert figures(confidence, right, other * fit.temperature).nll > after.nll


def test_the_interval_holds_the_truth_in_nineteen_of_twenty_cases():
    fits = [fit_temperature(*network(1.5, 400, seed)) for seed in range(200)]
    assert 0.9 < np.mean([fit.low < 1.5 < fit.high for fit in fits]) < 0.99


def test_ece_by_hand():
    """Bins of 1/15: 0.70 and 0.72 share one, 0.05 and 1.0 have their own."""
    confidence, right = np.array([0.70, 0.72, 0.05, 1.0]), np.array([True, False, False, True])
    found = figures(confidence, right)
    assert found.ece == pytest.approx((2 * abs(0.5 - 0.71) + abs(0 - 0.05) + 0) / 4)
    assert found.ece_adaptive == pytest.approx((0.30 + 0.72 + 0.05 + 0) / 4), "a bin a word"
    assert found.brier == pytest.approx((0.3**2 + 0.72**2 + 0.05**2) / 4)
    assert found.nll == pytest.approx(-np.log([0.70, 0.28, 0.95, 1]).mean(), abs=1e-7)
    assert (found.words, found.accuracy, found.confidence) == (4, 0.5, pytest.approx(0.6175))
    bins = reliability(confidence, right)
    assert [(row["bin"], row["words"], row["right"]) for row in bins] == [(0, 1, 0), (10, 2, 1), (14, 1, 1)]
    assert bins[1]["confidence"] == 71.0 and bins[1]["percent"] == 50.0


def test_adaptive_bins_hold_equally_many_words():
    """30 words in 15 bins: neighbours by confidence are together, in whatever order they come."""
    confidence = np.linspace(0.9, 0.99, 30)
    right = np.arange(30) % 2 == 0
    pairs = confidence.reshape(15, 2).mean(axis=1)
    shuffled = np.random.default_rng(0).permutation(30)
    found = figures(confidence[shuffled], right[shuffled])
    assert found.ece_adaptive == pytest.approx(np.abs(0.5 - pairs).mean())


def test_the_ece_of_chance_is_what_a_calibrated_network_shows():
    confidence, right = network(1.0, 500)
    spread = [figures(*network(1.0, 500, seed)).ece for seed in range(1, 40)]
    assert figures(confidence, right).ece_of_chance == pytest.approx(np.mean(spread), rel=0.2)


def test_certain_and_wrong_costs_much_but_not_everything():
    found = figures(np.array([1.0, 1.0, 0.0, 0.6], np.float32), np.array([True, False, True, True]), 2.0)
    assert np.isfinite(found.nll) and found.nll > 10


def test_words_that_no_temperature_changes_do_not_bend_the_fit():
    confidence, right = network(1.7, 2000)
    edges = np.tile(np.float32([0, 1]), 500)
    more = np.concatenate((confidence, edges)), np.concatenate((right, np.arange(1000) % 4 < 2))
    assert fit_temperature(*more) == fit_temperature(confidence, right)


@pytest.mark.parametrize("right", [np.ones(5, bool), np.zeros(5, bool)])
def test_words_of_one_kind_only_are_nothing_to_fit(right):
    with pytest.raises(DataError, match=r"all 5 words to fit on are (right|wrong)"):
        fit_temperature(np.full(5, 0.7, np.float32), right)


def test_confidence_that_says_nothing_or_all_is_not_fitted():
    right = np.arange(100) % 2 == 0
    for confidence in (np.where(right, 0.9, 0.1), np.where(right, 0.1, 0.9)):
        with pytest.raises(DataError, match=r"not within 0\.2 to 20"):
            fit_temperature(confidence.astype(np.float32), right)


def test_golden_section_finds_a_minimum():
    assert golden_section(lambda x: (x - 1.234) ** 2, 0, 5) == pytest.approx(1.234, abs=1e-6)
    assert golden_section(lambda x: x, 0, 5) == pytest.approx(0, abs=1e-6)


@pytest.fixture
def data(tmp_path, write_lmdb, golden):
    """Two training sets of the same kind, every third label wrong; and a test set."""
    arrays = golden("tiny")
    words = [(pixels, text) for pixels, text in zip(arrays["images"], map(str, arrays["text"]))
             if re.sub("[^0-9a-z]", "", text.lower())]  # fmt: skip
    spoiled = [(pixels, "wrong" if k % 3 == 0 else text) for k, (pixels, text) in enumerate(words)]
    write_lmdb(tmp_path / "data" / "train" / "SVT", spoiled)
    write_lmdb(tmp_path / "data" / "train" / "IC03", [*spoiled[::-1], (b"no picture", "word")])
    write_lmdb(tmp_path / "data" / "SVT", spoiled[:8])
    return tmp_path / "data"


@pytest.fixture
def tempered(tiny_bundle, tmp_path):
    """The tiny bundle as if it had been calibrated already."""
    folder = shutil.copytree(tiny_bundle, tmp_path / "tempered")
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["config"]["temperature"] = 4.0
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


def test_words_are_read_as_the_network_gives_them(data, tiny_bundle, tempered):
    """Before rounding, and before whatever the bundle is calibrated with."""
    folder, protocol = data / "train" / "IC03", Protocol()
    plain, hot = (
        read_words(Recognizer.load(bundle, threads=1), folder, protocol, "IC03") for bundle in (tiny_bundle, tempered)
    )
    np.testing.assert_array_equal(plain.confidence, hot.confidence)
    assert plain.confidence.dtype == np.float32 and plain.unreadable == 1
    assert 0 < plain.right.sum() < len(plain.right) == len(plain.confidence)


def test_equal_pictures_fall_into_the_same_half(data, tiny_bundle):
    recognizer = Recognizer.load(tiny_bundle, threads=1)
    one, two = (read_words(recognizer, data / "train" / name, Protocol(), name) for name in ("SVT", "IC03"))
    assert one.first_half.tolist() == two.first_half.tolist()[::-1]
    assert 0 < one.first_half.sum() < len(one.first_half)


def test_the_report_compares_before_and_after_on_the_words_that_were_not_fitted_on():
    one, two = (network(2.0, 3000, seed) for seed in (1, 2))
    report = calibrate(
        {"a": Words(*one, np.ones(3000, bool))},
        {"b": Words(*two, np.ones(3000, bool)), "c": Words(*(v[:500] for v in two), np.ones(500, bool))},
    )
    assert report["low"] < 2.0 < report["high"]
    assert report["fitted"]["sets"] == {"a": 3000} and list(report["measured"]["sets"]) == ["b", "c"]
    whole = report["measured"]["all"]
    assert whole["before"]["words"] == 3500 and whole["after"]["ece"] < 0.5 * whole["before"]["ece"]
    assert whole["before"] == figures(*(np.concatenate((v, v[:500])) for v in two)).to_json()
    assert sum(row["words"] for row in whole["bins"]["after"]) == 3500


def test_the_command_writes_figures_chart_and_checkpoint(
    data, tiny_bundle, golden_checkpoint, tmp_path, monkeypatch, capsys
):
    checkpoint = shutil.copy(golden_checkpoint("tiny"), tmp_path / "net.safetensors")
    before = load_checkpoint(checkpoint)
    # the tiny network's confidence says nothing of whether its made-up labels are right
    monkeypatch.setattr(calibration, "fit_temperature", lambda confidence, right: calibration.Fit(1.75, 1.5, 2.0))
    code = run(["--data", str(data), "--sets", "train/SVT", "train/IC03", "--bundle", str(tiny_bundle),
                "--threads", "1", "--quiet", "--json", str(tmp_path / "c.json"), "--chart", str(tmp_path / "c.png"),
                "--write", str(checkpoint)])  # fmt: skip
    out, err = capsys.readouterr()
    assert code == 0, err
    assert "temperature 1.750 (1.500 to 2.000)" in out and "train/IC03: 1 images cannot be read" in err
    report = json.loads((tmp_path / "c.json").read_text())
    assert report["halves"] and report["bundle"]["temperature"] == 1.0
    words = {name: row["before"]["words"] for name, row in report["measured"]["sets"].items()}
    assert report["fitted"]["sets"]["train/SVT"] + words["train/SVT"] == len(
        read_words(Recognizer.load(tiny_bundle, threads=1), data / "train" / "SVT", Protocol(), "").right
    )
    assert (tmp_path / "c.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    after = load_checkpoint(checkpoint)
    assert after.config.temperature == 1.75
    assert all(bool((value == before.state_dict()[key]).all()) for key, value in after.state_dict().items())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--sets", "SVT"], "SVT is the name of a test set, which nothing may be fitted on"),
        (["--fit-on", "SVT", "--measure-on", "train/SVT"], "SVT is the name of a test set"),
        (["--fit-on", "train/SVT", "--measure-on", "train/SVT"], "train/SVT: fitted and measured on"),
        (["--fit-on", "train/SVT"], "both --fit-on and --measure-on"),
        (["--sets", "train/SVT", "--fit-on", "train/IC03", "--measure-on", "SVT"], "either --sets"),
        ([], "name sets"),
        (["--sets", "train/IIIT5K"], "no set named"),
        (["--sets", "train/SVT", "--limit", "0"], "--limit"),
        (["--sets", "train/SVT", "--chart", "c.txt"], "must end in"),
        (["--sets", "train/SVT", "--write", "gone.safetensors"], "no such checkpoint"),
    ],
)
def test_wrong_arguments_are_one_line(data, tiny_bundle, options, message, capsys):
    code = run(["--data", str(data), "--bundle", str(tiny_bundle), "--threads", "1", "--quiet", *options])
    err = capsys.readouterr().err
    assert code == 2 and message in err and err.count("\n") == 1


def test_another_checkpoint_than_the_bundles_is_left_alone(data, tiny_bundle, random_model, tmp_path, capsys):
    from clip4str.model import save_checkpoint

    other, published = tmp_path / "other.safetensors", tmp_path / "published.ckpt"
    save_checkpoint(random_model(1), other)
    published.write_bytes(b"PK\x03\x04")
    content = other.read_bytes()
    for path, message in ((other, "not the checkpoint that tiny was built from"), (published, "only a .safetensors")):
        code = run(["--data", str(data), "--bundle", str(tiny_bundle), "--sets", "train/SVT", "--write", str(path)])
        err = capsys.readouterr().err
        assert code == 2 and message in err and err.count("\n") == 1
    assert other.read_bytes() == content
