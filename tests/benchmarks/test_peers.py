"""peers.py over words that the golden file knows. The peers are stand-ins that know the answers."""

from __future__ import annotations

import json
import re
import sys
from importlib import metadata
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from clip4str.benchmarks import peer_turns
from clip4str.benchmarks.figures import accuracy
from clip4str.benchmarks.peer_adapters import PEERS, Contender, open_peers
from clip4str.benchmarks.peer_turns import race, report
from clip4str.benchmarks.peers import main
from clip4str.core.errors import UsageError
from clip4str.data.labelled_words import LabelledWord
from clip4str.data.protocol import Protocol

ROW = {
    "name", "package", "note", "files", "bytes", "failed", "accuracy", "combined", "latency_ms", "ratio"
}  # fmt: skip


@pytest.fixture
def words(golden):
    """(pixels, label): what the tiny network reads, but for the one at place 2."""
    arrays = golden("tiny")
    found = list(zip(arrays["images"], map(str, arrays["text"])))[:6]
    found[2] = (found[2][0], "wrong")
    return [(pixels, label) for pixels, label in found if re.sub("[^0-9a-z]", "", label.lower())]


@pytest.fixture
def data(tmp_path, write_lmdb, words):
    write_lmdb(tmp_path / "data" / "svt", words)
    write_lmdb(tmp_path / "data" / "CUTE80", words[:3])
    return tmp_path / "data"


@pytest.fixture
def installed(monkeypatch, tmp_path):
    """installed(package, files, **module attributes): a stand-in package. No peer is installed beside these."""
    here: dict[str, str] = {}
    real = metadata.version

    def version(package: str) -> str:
        if package in here or package not in PEERS:
            return here.get(package) or real(package)
        raise metadata.PackageNotFoundError(package)

    def install(package: str, files=(), **attributes) -> ModuleType:
        here[package], name = "9.9", package.replace("-", "_")
        module, folder = ModuleType(name), tmp_path / "site" / name
        for file in files:
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).write_bytes(b"")
        module.__file__ = str(folder / "__init__.py")
        module.__dict__.update(attributes)
        monkeypatch.setitem(sys.modules, name, module)
        return module

    monkeypatch.setattr(metadata, "version", version)
    monkeypatch.setitem(sys.modules, "cv2", SimpleNamespace(setNumThreads=lambda threads: None))
    return install


@pytest.fixture
def know(words):
    """know(wrong places, raise at places) -> pixels as OpenCV has them -> the label, but where it is not to be."""

    def make(wrong=(), broken=()):
        known = {pixels[:, :, ::-1].tobytes(): number for number, (pixels, _) in enumerate(words)}

        def read(pixels):
            if pixels.min() == 255:
                return "blank"
            number = known[pixels.tobytes()]  # KeyError if it is not BGR
            if number in broken:
                raise RuntimeError("out of\nmemory")
            return "nonsense" if number in wrong else words[number][1].upper()

        return read

    return make


def v6(read, settings):
    class RapidOCR:
        def __init__(self, params):
            self.width = params["Rec.rec_img_shape"][2]
            settings.append(params)

        def __call__(self, pixels, **steps):
            assert steps == {"use_det": False, "use_cls": False, "use_rec": True}
            text = read(pixels) if self.width > 48 else None
            return SimpleNamespace(txts=None if text is None else (text,))

    return RapidOCR


def run(data, bundle, tmp_path, *options):
    figures = tmp_path / "peers.json"
    assert main(["--data", str(data), "--bundle", str(bundle), "--quiet", "--json", str(figures), *options]) == 0
    values = json.loads(figures.read_text())
    return values, {row["name"]: row for row in values["recognisers"]}


def test_ours_alone(data, tiny_bundle, words, installed, tmp_path, capsys):
    values, rows = run(data, tiny_bundle, tmp_path, "--peers")
    (row,) = rows.values()
    assert row["accuracy"]["SVT"] == accuracy([label != "wrong" for _, label in words])
    assert row["combined"]["words"] == len(words) + 3 and row["combined"]["right"] == len(words) + 1
    assert row["ratio"]["to"] == row["name"] and row["ratio"]["median"] == 1 and values["missing"] == {}
    assert tiny_bundle.name in capsys.readouterr().out


def test_peers_beside_ours(data, tiny_bundle, words, installed, know, tmp_path, capsys, monkeypatch):
    points, scatter = [], Axes.scatter
    monkeypatch.setattr(Axes, "scatter", lambda axes, x, y, **k: points.append((x, y)) or scatter(axes, x, y, **k))
    settings = []
    models = ("models/x_det_y.onnx", "models/PP-OCRv6_rec_small.onnx")
    installed("rapidocr", models, RapidOCR=v6(know(wrong={0, 1}), settings))
    chart = tmp_path / "peers.png"
    values, rows = run(data, tiny_bundle, tmp_path, "--threads", "1", "--chart", str(chart))
    assert {"recognisers", "missing", "machine", "limit", "protocol"} == values.keys()
    assert all(row.keys() == ROW for row in rows.values()) and len(rows) == 4
    six = rows["PP-OCRv6 small"]
    assert six["accuracy"]["SVT"]["right"] == len(words) - 2 and six["accuracy"]["CUTE80"]["right"] == 1
    assert six["combined"] == accuracy([True] * (len(words) - 1) + [False] * 4)
    assert rows["PP-OCRv6 small, 160"]["combined"] == six["combined"]
    assert rows["PP-OCRv6 small, unpadded"]["combined"]["right"] == 0  # read no text, which is no failure
    assert six["package"] == "rapidocr 9.9" and six["failed"] == 0 and six["files"] == ["PP-OCRv6_rec_small.onnx"]
    assert [params["Rec.rec_img_shape"] for params in settings] == [[3, 48, 320], [3, 48, 160], [3, 48, 48]]
    assert {params["EngineConfig.onnxruntime.intra_op_num_threads"] for params in settings} == {1}
    assert {row["ratio"]["to"] for row in rows.values()} == {"PP-OCRv6 small"}
    assert six["ratio"]["median"] == six["ratio"]["of_medians"] == 1

    assert values["missing"] == {
        "rapidocr-onnxruntime": "not installed: pip install rapidocr-onnxruntime==1.4.4",
        "azcrawlerpy-recaptcha-text": "not installed: pip install azcrawlerpy-recaptcha-text==1.0.1",
    }
    out = capsys.readouterr().out
    assert all(f"\n{package}: {why}\n" in out for package, why in values["missing"].items())
    (line,) = re.findall(r"^\| PP-OCRv6 small +\|.*$", out, re.MULTILINE)
    assert f"{six['combined']['percent']:.1f} ({six['combined']['low']:.1f} to " in line
    assert points == [(row["latency_ms"]["median"], row["combined"]["percent"]) for row in rows.values()]
    drawn = np.asarray(Image.open(chart).convert("L"))
    assert drawn.shape[1] > 1000 and 0.005 < (drawn < 200).mean() < 0.5  # some ink, not all


def test_a_broken_peer_stops_no_other(data, tiny_bundle, words, installed, know, tmp_path, capsys):
    def fails(**settings):
        raise OSError("no\n such file")

    installed("rapidocr", ["models/PP-OCRv6_rec_small.onnx"], RapidOCR=v6(know(broken={0, 1}), []))
    installed("rapidocr-onnxruntime", ["models/ch_PP-OCRv4_rec_infer.onnx"], RapidOCR=fails)
    installed("azcrawlerpy-recaptcha-text", ["svtrv2.onnx"])
    values, rows = run(data, tiny_bundle, tmp_path)
    six = rows["PP-OCRv6 small"]
    assert six["failed"] == 4 and six["combined"]["right"] == len(words) + 3 - 4
    assert all(value > 0 for row in rows.values() for value in (*row["latency_ms"].values(), row["ratio"]["median"]))
    assert values["missing"]["rapidocr-onnxruntime"] == "does not start (OSError: no such file)"
    assert "no selector.onnx" in values["missing"]["azcrawlerpy-recaptcha-text"]
    assert "failed at 4 words" in capsys.readouterr().out

    installed("rapidocr", ["models/PP-OCRv6_rec_small.onnx"], RapidOCR=v6(know(broken=range(9)), []))
    values, rows = run(data, tiny_bundle, tmp_path)
    assert values["missing"]["PP-OCRv6 small"] == "fails at every word (RuntimeError: out of memory)"
    ours = next(iter(rows))  # takes the reference's place
    assert {row["ratio"]["to"] for row in rows.values()} == {ours}
    assert rows.keys() == {ours, "PP-OCRv6 small, unpadded"}  # which reads nothing, but does not fail


def test_v4_reads_lines_and_none(installed, know, words):
    class RapidOCR:
        def __init__(self, rec_model_path, rec_img_shape, intra_op_num_threads, inter_op_num_threads):
            self.empty = rec_img_shape[2] == 160

        def __call__(self, pixels, use_det, use_cls, use_rec):
            return (None, None) if self.empty else ([[know()(pixels), 0.9]], [0.1])

    installed("rapidocr-onnxruntime", ["models/ch_PP-OCRv4_rec_infer.onnx"], RapidOCR=RapidOCR)
    found, _ = open_peers(1, ["rapidocr-onnxruntime"])
    texts = [side.read(side.convert(words[0][0])) for side in found]
    assert texts == [words[0][1].upper(), "", words[0][1].upper()]


def test_svtrv2_picks_a_size_and_reads_ctc(installed, monkeypatch):
    asked = []

    class Session:
        def __init__(self, file, options, providers):
            self.selects = file.name == "selector.onnx"
            assert options.intra_op_num_threads == 3

        def run(self, outputs, feed):
            asked.append(feed)
            if self.selects:
                return [np.array([[0.0, 3.0, 1.0, 2.0]])]
            steps = np.zeros((1, 9, 95), np.float32)
            for place, best in enumerate((11, 11, 0, 11, 12, 37, 0, 0, 94)):
                steps[0, place, best] = 1
            return [steps]

    installed("azcrawlerpy-recaptcha-text", ["svtrv2.onnx", "selector.onnx"])
    monkeypatch.setattr("onnxruntime.InferenceSession", Session)
    (side,) = open_peers(3, ["azcrawlerpy-recaptcha-text"])[0]
    asked.clear()
    assert side.read(side.convert(np.full((20, 200, 3), 255, np.uint8))) == "aabA~"
    thumb, image = asked[0]["thumb"], asked[1]["image"]
    assert thumb.shape == (1, 3, 16, 64) and image.shape == (1, 3, 48, 96) and image.dtype == np.float32
    assert image.min() == image.max() == 1
    assert asked[0]["shape"] == pytest.approx(np.array([[2.0, np.log(10)]]))  # ten times as wide as high: at most 8 / 4


def test_ratio_is_taken_word_by_word_whatever_else_runs(monkeypatch, tmp_path):
    """A clock that runs ten times as fast at every second word: medians move, ratios at the same word do not."""
    clock, turns = [0.0], []
    monkeypatch.setattr(peer_turns.time, "perf_counter", lambda: clock[0])

    def side(name, seconds):
        def read(pixels):
            turns.append((int(pixels[0, 0, 0]), name))
            clock[0] += seconds * (10 if pixels[0, 0, 0] % 2 else 1)
            return "word"

        return Contender(name, "x", [], read)

    sides = [side("slow", 0.03), side("reference", 0.01), side("fast", 0.005)]
    words = [LabelledWord(n + 1, np.full((8, 8, 3), n, np.uint8), "word", "word") for n in range(40)]
    answers = race(sides, words, Protocol(), "set")
    rows = report(sides, {"set": answers}, reference=1)
    assert [row["ratio"]["median"] for row in rows] == [3.0, 1.0, 0.5]
    assert [row["ratio"]["quartile_1"] for row in rows] == [row["ratio"]["quartile_3"] for row in rows] == [3, 1, 0.5]
    assert {row["ratio"]["to"] for row in rows} == {"reference"}
    assert rows[1]["latency_ms"] == {"median": 55.0, "quartile_1": 10.0, "quartile_3": 100.0}
    raced = turns[-3 * len(words) :]
    for number in range(len(words)):  # all read a word before the next one comes
        assert {*raced[3 * number : 3 * number + 3]} == {(number, name) for name in ("slow", "reference", "fast")}
    assert len({tuple(name for _, name in raced[k : k + 3]) for k in range(0, len(raced), 3)}) == 6


@pytest.mark.parametrize(
    ("right", "words", "low", "high"),  # Newcombe 1998, table I, method 3
    [(81, 263, 25.53, 36.62), (15, 148, 6.24, 16.05), (0, 20, 0.0, 16.11), (1, 29, 0.61, 17.18), (20, 20, 83.89, 100)],
)
def test_wilson(right, words, low, high):
    found = accuracy([True] * right + [False] * (words - right))
    assert (found["right"], found["words"], found["percent"]) == (right, words, round(100 * right / words, 2))
    assert (found["low"], found["high"]) == (low, high)


def test_sets_and_numbers_that_cannot_be(data, tiny_bundle, words, write_lmdb, tmp_path):
    with pytest.raises(UsageError, match="no set named SVTP; found: SVT, CUTE80"):
        main(["--data", str(data), "--bundle", str(tiny_bundle), "--sets", "SVTP"])
    with pytest.raises(UsageError, match="limit is 1 or more"):
        main(["--data", str(data), "--bundle", str(tiny_bundle), "--limit", "0"])
    other = write_lmdb(tmp_path / "other" / "SVT", words)
    with pytest.raises(UsageError, match="two sets are named SVT"):
        main(["--data", str(data), str(other), "--bundle", str(tiny_bundle)])
