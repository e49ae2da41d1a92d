"""Predicted streams: the detector's arithmetic is its graph's own, and what is asked for more of makes fewer."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from clip4str.benchmarks import roofline, streams
from clip4str.benchmarks.cameras import needs
from clip4str.benchmarks.detector_launches import detector_launches
from clip4str.benchmarks.devices import DEVICES
from clip4str.benchmarks.launches import total_flops
from clip4str.benchmarks.streams import DECODERS, demand, stream_predictions, stream_table
from clip4str.core.console import run_script
from clip4str.core.errors import UsageError
from clip4str.model.sizes import SIZES
from clip4str.video.detect.ppocr import installed_model

ROOT = Path(__file__).resolve().parents[2]
COMMITTED, DOCS = ROOT / "benchmarks" / "results" / "streams.json", ROOT / "docs"
WRITE = "python benchmarks/roofline.py --streams --json benchmarks/results/streams.json; then gpu.md, serving.md"
HOW = {"stages_ms_per_frame": {"flow": 14.0, "quality": 2.0}, "chosen reads": {"reads": 200}, "frames": 100}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A little detector, and its operations by torch's own count."""
    pytest.importorskip("onnx")
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.Conv2d(8, 8, 3, 1, 1, groups=8), nn.Conv2d(8, 16, 1),
        nn.ConvTranspose2d(16, 5, 2, 2), nn.Conv2d(5, 1, 1), nn.Sigmoid(),
    ).eval()  # fmt: skip
    pixels, path = torch.zeros(1, 3, 64, 96), tmp_path_factory.mktemp("streams") / "net.onnx"
    torch.onnx.export(net, (pixels,), str(path), input_names=["x"], dynamo=False)
    with FlopCounterMode(display=False) as counter:
        net(pixels)
    return path, counter.get_total_flops()


def made(tmp_path, model, **changes):
    (tmp_path / "video.json").write_text(json.dumps({**HOW, **changes}))
    networks = {name: SIZES[name] for name in ("small", "base16")}
    return stream_predictions(networks, DEVICES, model, tmp_path / "video.json")


def test_the_detectors_arithmetic_is_its_graphs_own(model):
    path, flops = model
    assert total_flops(detector_launches(path, (64, 96))) == flops
    onnx.checker.check_model(str(path))
    larger = detector_launches(path, (128, 192))
    assert total_flops(larger) == pytest.approx(4 * flops) and len(larger) == 5


def test_every_device_has_its_limits_and_the_least_counts(tmp_path, model):
    report = made(tmp_path, model[0])
    assert set(DECODERS) == set(DEVICES) and len(report["rows"]) == 2 * len(DEVICES)
    for row in report["rows"]:
        assert row["streams"] == min(row["limits"].values()) == row["limits"][row["bound_by"]]
        assert ("processor" in row["limits"]) == (DEVICES[row["device"]].bus is None)
        assert all(np.isfinite(row[key]) and row[key] > 0 for key in ("shrink_us", "search_us", "read_us", "host_ms"))
    table = stream_table(report)
    assert "predicted" in table.lower() and all(decoder.source in table for decoder in DECODERS.values())


def test_more_words_cost_the_gpu_and_slower_following_the_host(tmp_path, model):
    rows = {(r["network"], r["device"]): r for r in made(tmp_path, model[0])["rows"]}
    twice = {"chosen reads": {"reads": 400}, "stages_ms_per_frame": {"flow": 30.0, "quality": 2.0}}
    for key, row in ((k, r) for r in made(tmp_path, model[0], **twice)["rows"] for k in [(r["network"], r["device"])]):
        before = rows[key]
        assert row["read_us"] == pytest.approx(2 * before["read_us"])
        assert row["search_us"] == before["search_us"] and row["host_ms"] > before["host_ms"]
        assert row["limits"]["decoder"] == before["limits"]["decoder"]
        assert row["limits"]["gpu"] < before["limits"]["gpu"]


def test_what_videos_ask_for_comes_from_the_committed_figures(monkeypatch):
    asked = demand(json.loads(streams.MEASURED.read_text()))
    assert 0 < asked["reads_per_frame"] < 20 and 0 < asked["host_ms_per_frame"] < 100
    committed = json.loads(COMMITTED.read_text())
    assert "predicted" in committed["status"] and {r["device"] for r in committed["rows"]} == set(DEVICES)
    assert {key: committed["assumed"][key] for key in asked} == asked, f"written before video.json: {WRITE}"


def test_the_committed_figures_are_what_is_predicted_now():
    pytest.importorskip("rapidocr")
    networks = {name: SIZES[name] for name in ("small", "base16")}
    fresh = json.loads(roofline.dump(stream_predictions(networks, DEVICES, installed_model())))
    assert json.loads(COMMITTED.read_text()) == fresh, f"stale: {WRITE}"


def test_the_pages_tables_are_the_committed_figures():
    report = json.loads(COMMITTED.read_text())
    rows = {(row["network"], row["device"]): row for row in report["rows"]}
    gpu, serving = ((DOCS / name).read_text() for name in ("gpu.md", "serving.md"))
    for key, device in report["devices"].items():
        small, base = rows["small", key], rows["base16", key]
        cells = [device["name"], small["limits"]["decoder"]]
        for row in (small, base):
            cells += [row["limits"]["gpu"], row["streams"], row["bound_by"], f"{row['cores']:.1f}"]
        assert f"| {' | '.join(map(str, cells))} |\n" in gpu
    named = {device["name"]: key for key, device in report["devices"].items()}
    table = serving.partition("### A thousand cameras")[2].partition("**First")[0]
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines() if line.startswith("|")]
    assert len(lines) == 6
    for name, *cells in lines[2:]:
        few, many = (needs(1000, rows[n, named[name]], report["assumed"], 4000) for n in ("small", "base16"))
        wanted = few["decoding"], few["finding"], few["reading"], many["reading"], many["cores"]
        assert cells == [str(number) for number in wanted]
    assert f"{few['crops']:,.0f} crops a second" in serving


def test_the_script_prints_and_writes_them(tmp_path, model, monkeypatch, capsys):
    monkeypatch.setattr(roofline, "installed_model", lambda: model[0])
    file = tmp_path / "out.json"
    options = ["--streams", "--networks", "small", "--devices", "l4", "thor", "--json", str(file)]
    assert run_script("roofline.py", lambda _: roofline.main(options)) == 0
    rows = json.loads(file.read_text())["rows"]
    assert [row["device"] for row in rows] == ["l4", "thor"]
    assert f"| {rows[0]['streams']} |" in " ".join(capsys.readouterr().out.split())
    for wrong in (["--kernels"], ["--batch", "4"], ["--passes", "9", "2"], ["--chart", "x.png"]):
        with pytest.raises(UsageError, match=r"--streams has its own batches and passes|four reports: name one"):
            roofline.main(["--streams", *wrong])


def test_a_graph_whose_shapes_are_not_known_is_no_silent_zero(tmp_path, model):
    graph = onnx.load(str(model[0]))
    graph.graph.node[0].input[0] = "nowhere"
    onnx.save(graph, str(tmp_path / "odd.onnx"))
    with pytest.raises((KeyError, ValueError)):
        detector_launches(tmp_path / "odd.onnx", (64, 96))
