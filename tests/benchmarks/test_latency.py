"""`clip4str bench` on the tiny golden network: what it reports and that forced words are forced. No times."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from clip4str.benchmarks import latency
from clip4str.benchmarks.forcing import ForcedBackend, ForcedWords, Forcing
from clip4str.benchmarks.latency import main
from clip4str.benchmarks.latency_chart import save_chart
from clip4str.benchmarks.latency_sides import STAGES
from clip4str.core.cli import main as run_command
from clip4str.core.text import Charset
from clip4str.data.word_images import word_images
from clip4str.export.parity_images import BUNDLED_CROPS
from clip4str.model import Config
from clip4str.model.sizes import SIZES
from clip4str.runtime import Recognizer

ONCE = ("--repeat", "1", "--warmup", "0", "--threads", "1", "--quiet")
LATENCY = ("min", "max", "mean", "median", "percentile(90%)", "percentile(99%)", "throughput_qps")


@pytest.fixture
def crops(golden, tmp_path):
    (tmp_path / "crops").mkdir()
    for i, image in enumerate(golden("tiny")["images"][:3]):
        Image.fromarray(image).save(tmp_path / "crops" / f"{i}.png")
    return tmp_path / "crops"


def test_report_and_chart(tiny_bundle, golden_checkpoint, crops, tmp_path, capsys):
    report, chart = tmp_path / "report.json", tmp_path / "chart.png"
    options = ("--batch", "1", "2", "--words", str(crops), "--json", str(report), "--chart", str(chart))
    sources = ("--bundle", str(tiny_bundle), "--checkpoint", str(golden_checkpoint("tiny")))
    assert main([*sources, *options, *ONCE]) == 0
    values = json.loads(report.read_text())
    assert {"machine", "bundle", "precision", "backend", "dtype", "checkpoint", "forced", "batches"} == values.keys()
    assert [b["batch"] for b in values["batches"]] == [1, 2]
    one = values["batches"][0]
    for side in ("bundle", "bundle_warm", "published"):
        assert all(one[side][name] > 0 for name in LATENCY)
        assert set(one[side]["stages"]) == {"prepare", "image", "visual", "text", "cross", "host"}
        assert one[side]["stages"]["image"]["calls"] == 1
    assert one["same_words"] == {"words": 1, "same": 1}
    assert one["bundle_warm"]["stages"]["text"]["calls"] == 0
    assert one["ratio"].keys() == {"of_medians", "quartile_1", "quartile_3"}
    assert Image.open(chart).size[0] > 1000
    out = capsys.readouterr().out
    assert "percentile(99%)" in out and "Throughput qps" in out and "passes a batch" in out


@pytest.mark.parametrize("text_calls", [1, 2])
def test_forced_words(tiny_bundle, golden_checkpoint, tmp_path, text_calls):
    report = tmp_path / "report.json"
    forced = ("--force-length", "20", "--force-passes", "4", "2", "--force-text-calls", str(text_calls))
    sources = ("--bundle", str(tiny_bundle), "--checkpoint", str(golden_checkpoint("tiny")))
    assert main([*sources, "--batch", "3", "--json", str(report), *forced, *ONCE]) == 0
    values = json.loads(report.read_text())
    assert values["forced"]["length"] == 20
    batch = values["batches"][0]
    passes, stages = batch["passes"], batch["published"]["stages"]
    assert (passes["visual_passes"], passes["cross_passes"], passes["refine_passes"]) == (4, 2, 2)
    assert (passes["text_calls"], passes["captions_encoded"]) == (text_calls, 3 * text_calls)
    # 21 steps, the last predicts the end, and one refinement
    assert (stages["visual"]["calls"], stages["cross"]["calls"], stages["text"]["calls"]) == (22, 22, 2)


@pytest.mark.parametrize(("visual", "cross"), [(2, 1), (3, 3), (5, 4)])
def test_forced_passes_are_the_drivers_own(tiny_bundle, visual, cross):
    recognizer = Recognizer.load(tiny_bundle, threads=1)
    driver = recognizer.driver
    backend = ForcedBackend(recognizer.backend, Forcing(6, visual, cross), driver)
    reading = backend.read(driver, np.zeros((2, 3, 64, 64), np.float32))
    assert (reading.stats.visual_passes, reading.stats.cross_passes) == (visual, cross)
    words = [driver.charset.decode(row) for row in reading.ids]
    assert [len(word) for word in words] == [6, 6] and words[0] != words[1]


def test_forced_words_differ_in_a_batch():
    words = ForcedWords(Charset(), 26, 6, 32)
    assert len({tuple(row) for row in words.ids()}) == 32
    assert (words.ids(1) != words.ids()).sum(axis=1).tolist() == [1] * 32


def test_without_the_published_way(tiny_bundle, tmp_path, capsys):
    report = tmp_path / "report.json"
    options = ("--bundle", str(tiny_bundle), "--no-published", "--batch", "1", "--json", str(report))
    assert main([*options, *ONCE]) == 0
    assert "published" not in json.loads(report.read_text())["batches"][0]
    assert "published" not in capsys.readouterr().out


def test_another_engine_is_timed_and_named(tiny_bundle, tmp_path, capsys):
    pytest.importorskip("openvino")
    report = tmp_path / "report.json"
    how = ["--backend", "openvino", "--dtype", "float32", "--no-published", "--json", str(report)]
    assert main(["--bundle", str(tiny_bundle), "--batch", "1", *how, *ONCE]) == 0
    assert "(fp32, openvino, float32)" in capsys.readouterr().out
    figures = json.loads(report.read_text())
    assert (figures["backend"], figures["dtype"]) == ("openvino", "float32")


def test_without_torch(tiny_bundle, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "torch", None)
    assert run_command(["bench", "--bundle", str(tiny_bundle), "--batch", "1"]) == 2
    assert "give --no-published" in capsys.readouterr().err
    assert main(["--bundle", str(tiny_bundle), "--batch", "1", "--no-published", *ONCE]) == 0


def test_a_chart_needs_matplotlib(tiny_bundle, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(latency, "take_turns", lambda *_: pytest.fail("timed before it was checked"))
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    options = ("--no-published", "--batch", "1", "--chart", str(tmp_path / "a.png"))
    assert run_command(["bench", "--bundle", str(tiny_bundle), *options]) == 2
    assert "a chart needs matplotlib" in capsys.readouterr().err


def test_bars_are_as_long_as_their_medians(tmp_path, monkeypatch):
    """On a busy machine, medians of stages add up to anything."""
    side = {"median": 80.0, "stages": {stage: {"ms": 5.0} for stage in STAGES}}
    drawn = []
    monkeypatch.setattr(Axes, "barh", lambda self, place, width, **options: drawn.append(width))
    save_chart([{"batch": 8, "bundle": side}], tmp_path / "chart.svg", "title")
    assert sum(drawn) == pytest.approx(10)
    assert (tmp_path / "chart.svg").read_text().startswith("<?xml")


def test_without_words_the_bundled_crops_are_timed():
    images = word_images(None)
    assert len(images) == len(list(BUNDLED_CROPS.glob("*.jpg"))) > 8
    assert all(image.ndim == 3 and image.shape[2] == 3 and image.dtype == np.uint8 for image in images)


def test_random_weights_need_no_checkpoint(tmp_path, monkeypatch, capsys):
    shape = {"image_size": (32, 64), "patch_size": (16, 16), "image_width": 64, "image_layers": 1, "d": 64}
    small = Config(**shape, text_width=64, text_layers=1, vocabulary=600, decoder_mlp=64)
    monkeypatch.setitem(SIZES, "tiny", small)
    options = ("--random-weights", "tiny", "--keep", str(tmp_path), "--batch", "1", *ONCE)
    assert main(options) == 0
    assert "building a random tiny network" in (first := capsys.readouterr().out)
    assert "forced: words of 6 characters, 3 visual and 3 cross passes" in first
    assert main(options) == 0
    assert "building" not in capsys.readouterr().out  # kept


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--checkpoint", "other.safetensors", "--batch", "1"), "the bundle was built from tiny.safetensors"),
        (("--batch", "9"), "--batch 9: the bundle takes at most 8 images"),
        (("--batch", "0"), "--batch is 1 or more"),
        (("--force-length", "26"), "length to force: 1 to 25"),
        (("--force-length", "0"), "length to force: 1 to 25"),
        (("--force-passes", "1", "1"), "visual passes to force: 2 to 26"),
        (("--random-weights", "base16"), "leave out --bundle"),
        (("--chart", "nowhere/a.png"), "its folder does not exist"),
        (("--chart", "."), ".: is a folder; name a file"),
        (("--json", "."), ".: is a folder; name a file"),
        (("--chart", "a.foo"), "a.foo: its name must end in .png, .svg or .pdf"),
        (("--chart", "a"), "a: its name must end in .png, .svg or .pdf"),
        (("--keep", "other.safetensors"), "other.safetensors: is not a folder"),
        (("--batch", "one"), "argument --batch: invalid int value: 'one'"),
        (("--rep", "1"), "unrecognized arguments: --rep 1"),
        (("--words", "nowhere"), "nowhere"),
    ],
)
def test_mistakes_are_one_line(arguments, message, tiny_bundle, tmp_path, monkeypatch, capsys):
    """And are found before anything is timed."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(latency, "take_turns", lambda *_: pytest.fail("timed before it was checked"))
    (tmp_path / "other.safetensors").write_bytes(b"something else")
    assert run_command(["bench", "--bundle", str(tiny_bundle), *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
