"""Predictions for engines: the work counted is the ONNX graphs' own, times obey the datasheets."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace
from math import prod
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode
from without_torch import SCRIPT

from clip4str.benchmarks import kernel_launches, roofline
from clip4str.benchmarks import predictions as arithmetic
from clip4str.benchmarks.devices import DEVICES, device_called
from clip4str.benchmarks.engine_launches import PRECISIONS, STAGES, stage_launches
from clip4str.benchmarks.launches import total_bytes, total_flops
from clip4str.benchmarks.predictions import predict, predict_program, predictions
from clip4str.benchmarks.roofline import main, network, table
from clip4str.core.console import run_script
from clip4str.core.errors import UsageError
from clip4str.export.stage_files import write_stages
from clip4str.model import Clip4Str
from clip4str.model.sizes import SIZES

RESULTS = Path(__file__).resolve().parents[2] / "benchmarks" / "results"
IMAGES = 3


@pytest.fixture(scope="module")
def graphs(random_model, tmp_path_factory):
    """(Config, {stage: its ONNX file}) of a small network"""
    model, folder = random_model(), tmp_path_factory.mktemp("stages")
    write_stages(model, folder, "fp32", lambda _: None, lambda _: None)
    return model.config, {stage: folder / f"{stage}.onnx" for stage in STAGES}


def products(path: Path, steps: int) -> tuple[float, float]:
    """(arithmetic, bytes of the weights multiplied with) of a stage's Conv, Gemm and MatMul nodes, with N = IMAGES and
    the shapes that ONNX Runtime finds."""
    model = onnx.load(path)
    nodes = [node for node in model.graph.node if node.op_type in ("Conv", "Gemm", "MatMul")]
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    known = {value.name for value in (*model.graph.input, *model.graph.output)} | set(weights)
    asked = {name for node in nodes for name in (*node.input[:2], node.output[0])} - known
    model.graph.output.extend(onnx.ValueInfoProto(name=name) for name in asked)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    feeds = {}
    for value in model.graph.input:
        kind = value.type.tensor_type
        sizes = [d.dim_value or {"N": IMAGES}.get(d.dim_param, steps) for d in kind.shape.dim]
        feeds[value.name] = np.ones(sizes, onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
    names = [output.name for output in model.graph.output]
    shapes = weights | {name: array.shape for name, array in feeds.items()}
    shapes |= {name: array.shape for name, array in zip(names, session.run(names, feeds))}
    flops = 0.0
    for node in nodes:
        left, right = (shapes[name] for name in node.input[:2])
        turned = any(a.name == "transA" and a.i for a in node.attribute)
        inner = prod(right[1:]) if node.op_type == "Conv" else left[0] if turned else left[-1]
        flops += 2.0 * prod(shapes[node.output[0]]) * inner
    return flops, 4.0 * sum(prod(weights[name]) for node in nodes for name in node.input[:2] if name in weights)


@pytest.mark.parametrize("stage", STAGES)
def test_work_is_that_of_the_onnx_graph(graphs, stage):
    config, files = graphs
    flops, weights = products(files[stage], config.steps)
    parts = stage_launches(config, stage, IMAGES, "fp16")
    assert total_flops(parts) == pytest.approx(flops) and total_bytes(parts) > weights / 2
    for precision in ("int8", "fp8"):
        eight_bits = stage_launches(config, stage, IMAGES, precision)
        assert total_flops(eight_bits) == pytest.approx(flops)
        assert (total_flops(eight_bits, precision) > 0) == (stage in ("image", "text"))


def test_b16_is_the_vision_transformer_of_the_literature():
    """ViT-B/16 at 224: 17.56 G multiply-adds; our image stage's projections come on top."""
    flops = total_flops(stage_launches(SIZES["base16"], "image", 1, "fp16"))
    projections = 2 * 197 * (768 * 512 + 512 * 2 * 2 * 512)
    assert flops - projections == pytest.approx(2 * 17.56e9, rel=0.005)


@pytest.mark.parametrize("size, layers", [("small", (9, 3)), ("base16", (12, 12))])
def test_launches_are_those_of_a_build_log(size, layers):
    """TensorRT-RTX 1.7.1 on the float16 graphs, its shape calls and stream signals left out."""
    found = {s: predict(DEVICES["l4"], SIZES[size], 8, "fp16")["stages"][s]["launches"] for s in STAGES}
    assert found == {"image": 10 * layers[0] + 8, "visual": 18, "text": 10 * layers[1] + 4, "cross": 18}
    found = {s: predict(DEVICES["l4"], SIZES[size], 8, "int8")["stages"][s]["launches"] for s in STAGES}
    assert found == {"image": 10 * layers[0] + 7, "visual": 18, "text": 10 * layers[1] + 4, "cross": 18}
    found = {s: predict(DEVICES["l4"], SIZES[size], 8, "fp8")["stages"][s]["launches"] for s in STAGES}
    assert found == {"image": 9 * layers[0] + 7, "visual": 18, "text": 9 * layers[1] + 4, "cross": 18}


@pytest.mark.parametrize("name, operations", [
    ("orin-nano", 4096), ("orin-nx", 4096), ("agx-orin", 4096), ("thor", 16384), ("t4", 2048), ("l4", 2048),
    ("a10", 2048), ("h100", 8192), ("h200", 8192),
])  # fmt: skip
def test_peaks_are_dense(name, operations):
    """What a multiprocessor of that kind does in a clock: a figure with sparsity would be twice as much."""
    device = DEVICES[name]
    assert device.int8 == pytest.approx(device.multiprocessors * operations * device.clock / 1e3, rel=0.01)
    assert device.int8 == pytest.approx(2 * device.fp16, rel=0.01)
    assert "data sheet" in device.source


def test_fp8_is_of_ada_and_newer():
    assert {name for name, device in DEVICES.items() if device.fp8} == {"thor", "l4", "h100", "h200"}
    assert all(set(device.precisions) <= set(PRECISIONS) for device in DEVICES.values())


@pytest.mark.parametrize("said, name", [
    ("NVIDIA H200", "h200"), ("NVIDIA H100 80GB HBM3", "h100"), ("Tesla T4", "t4"), ("NVIDIA L4", "l4"),
    ("NVIDIA A10", "a10"), ("Orin", "agx-orin"), ("NVIDIA Thor", "thor"), ("NVIDIA L40S", "h100"),
])  # fmt: skip
def test_a_driver_names_a_device_of_the_table(said, name):
    assert device_called(said) is DEVICES[name]


def test_what_was_measured_takes_the_place_of_the_data_sheet():
    device = DEVICES["h100"].measured({"name": "x", "multiprocessors": 78}, {"copy_gbs": 2000.0, "fp16_tflops": 500.0})
    assert device.copy_gbs == pytest.approx(2000) and device.product_rate() == pytest.approx(500)
    assert (device.name, device.multiprocessors, device.launch_us) == ("x", 78, DEVICES["h100"].launch_us)
    assert DEVICES["h100"].measured({}, {}) == DEVICES["h100"]


@pytest.mark.parametrize("name", DEVICES)
def test_predictions_are_in_order(name):
    device = DEVICES[name]
    for size in ("small", "base16"):
        for batch in (1, 32):
            eight, half = (predict(device, SIZES[size], batch, p) for p in ("int8", "fp16"))
            if size == "base16":  # small products gain less than two launches more cost
                assert eight["total_us"] < half["total_us"]
            if device.fp8:  # as fast as int8, and fewer launches
                assert predict(device, SIZES[size], batch, "fp8")["total_us"] < eight["total_us"]
        for precision in device.precisions:
            batches = [predict(device, SIZES[size], batch, precision) for batch in (1, 2, 8, 32, 256)]
            totals = [row["total_us"] for row in batches]
            assert totals == sorted(totals) and totals[0] < totals[-1]
            assert batches[-1]["words_per_second"] > batches[0]["words_per_second"]


@pytest.mark.parametrize("name", DEVICES)
def test_nothing_is_faster_than_the_datasheet(name):
    device = DEVICES[name]
    for size, batch in (("base16", 1), ("small", 1), ("base16", 64)):
        for precision in device.precisions:
            row = predict(device, SIZES[size], batch, precision)
            for stage in row["stages"].values():
                by_bytes = 1e6 * stage["mb"] / (1e3 * device.bandwidth)
                fastest = 1e9 * stage["gflop"] / (1e6 * device.int8)
                assert stage["us"] > stage["floor_us"] >= (1 - 1e-9) * max(by_bytes, fastest)
            assert row["total_us"] > row["gpu_us"] > row["floor_us"]
            spent = row["launch_us"] + row["memory_us"] + row["arithmetic_us"]
            assert row["gpu_us"] == pytest.approx(spent)


def test_passes_and_the_bus_are_paid_for():
    config, device = SIZES["base16"], DEVICES["agx-orin"]
    few, many = (predict(device, config, 1, "fp16", passes) for passes in ((1, 1), (9, 2)))
    stages = few["stages"]
    more = 8 * stages["visual"]["us"] + stages["cross"]["us"]
    assert many["gpu_us"] - few["gpu_us"] == pytest.approx(more)
    assert many["host_us"] - few["host_us"] == pytest.approx(9 * device.host * arithmetic.CALL_US)
    card = predict(DEVICES["t4"], config, 32, "fp16")
    assert card["host_us"] > 32 * 3 * 224 * 224 * 4 / 12e3  # microseconds at 12 GB/s


@pytest.mark.parametrize("size, columns", [("small", 32), ("base16", 14)])
def test_a_draft_head_is_five_kernels_and_its_weights_once(size, columns):
    plain = SIZES[size]
    c = replace(plain, draft_frames=-(-32 // columns))
    assert c.draft_positions in (32, 42)
    for precision in PRECISIONS:
        with_head, without = (stage_launches(config, "image", 1, precision) for config in (c, plain))
        added = with_head[len(without) :]
        assert with_head[: len(without)] == without and sum(launch.count for launch in added) == 5
        weights = 2 * c.grid[0] * c.d * c.draft_frames * 95
        assert weights < total_bytes(added) < 1.2 * weights + 1e5
        for stage in ("visual", "text", "cross"):
            assert stage_launches(c, stage, 8, precision) == stage_launches(plain, stage, 8, precision)


@pytest.mark.parametrize("size", ["base16", "large", "small"])
def test_arithmetic_of_the_program_is_what_torch_counts(size):
    """The image tower's and a decoder pass's, counted by torch on tensors without data."""
    config = SIZES[size]
    with torch.device("meta"):
        model = Clip4Str(config)
        tokens, attend = torch.zeros(2, 26, dtype=torch.long), torch.ones(26, 26, dtype=torch.bool)
        with FlopCounterMode(display=False) as tower:
            memory = model.clip_model.visual(torch.zeros(2, 3, *config.image_size))
        kv = model.visual_decoder.project_memory(memory)
        with FlopCounterMode(display=False) as decoder:
            model.visual_decoder(tokens, attend, kv)
        with FlopCounterMode(display=False) as text:
            model.clip_model.encode_text(torch.zeros(2, config.context, dtype=torch.long))
    ends = 2 * 2 * config.memory_tokens * config.image_width * 4 * config.d  # proj and both K/V projections are one
    counted = total_flops(kernel_launches.image_tower(config, 2)) - ends
    plain = tower.get_total_flops() - 2 * 2 * config.memory_tokens * config.image_width * config.d
    assert counted == pytest.approx(plain, rel=0.01)
    # the tables of a pass replace content keys, values and two projections: less, never more
    assert 0.4 < total_flops(kernel_launches.decode_pass(config, 2, 0)) / decoder.get_total_flops() < 1
    assert total_flops(kernel_launches.text_tower(config, 2)) == pytest.approx(text.get_total_flops(), rel=0.1)


def test_bytes_of_the_program_hold_the_weights_once():
    """At batch 1 it must read every weight of the image tower: 2 bytes each."""
    with torch.device("meta"):
        model = Clip4Str(SIZES["base16"])
    weights = 2 * sum(p.numel() for p in model.clip_model.visual.transformer.parameters())
    assert weights < total_bytes(kernel_launches.image_tower(SIZES["base16"], 1)) < 1.6 * weights


def test_predictions_of_the_program_follow_the_device():
    config, h100 = SIZES["base16"], DEVICES["h100"]
    one, large = (predict_program(h100, config, n) for n in (1, 64))
    assert one["bound_us"] < one["total_us"] and large["bound_us"] < large["total_us"]
    assert one["launches"] <= large["launches"]
    free = replace(h100, launch_us=0, bandwidth=1e9, clock=1e5, host=0)
    assert predict_program(free, config, 64)["rate_share"] == pytest.approx(0.75, abs=0.1)  # waves are not whole
    slow = predict_program(replace(h100, launch_us=101.6), config, 1)
    assert slow["total_us"] - one["total_us"] == pytest.approx(100 * one["launches"])


def test_a_draft_takes_the_place_of_the_start_pass_and_of_another():
    config, h100 = SIZES["base16"], DEVICES["h100"]
    before, after = (predict_program(h100, c, 1) for c in (config, replace(config, draft_frames=3)))
    a_pass = len(kernel_launches.decode_pass(config, 1, 0))
    assert after["launches"] == before["launches"] + 4 - a_pass
    assert after["total_us"] < before["total_us"]


def test_kernels_are_a_table_and_of_one_device_launch_by_launch(tmp_path, capsys):
    file = tmp_path / "kernels.json"
    options = ["--kernels", "--networks", "base16", "--batch", "1", "--json", str(file)]
    assert main(options) == 0
    out = capsys.readouterr().out
    assert out.count("| base16 ") == len(DEVICES) and "launch by launch" not in out
    assert main([*options, "--devices", "h100"]) == 0
    out, (row,) = capsys.readouterr().out, json.loads(file.read_text())["rows"]
    assert sum(part["count"] for part in row["parts"]) == row["launches"]
    spent = sum(part["count"] * part["us"] for part in row["parts"])
    assert row["total_us"] == pytest.approx(spent + arithmetic.GRAPH_US, rel=1e-3)
    lines = out.partition("launch by launch")[2].splitlines()
    assert len([line for line in lines if line.startswith("| ")]) == len(row["parts"]) + 2


def test_digits():
    assert [roofline.digits(x) for x in (0, 0.01234, 0.999, 9.876, 12.34, 1234.5)] == [
        "0", "0.0123", "0.999", "9.88", "12.3", "1234",
    ]  # fmt: skip


def test_table_json_and_chart(tmp_path, capsys):
    files = tmp_path / "roofline.json", tmp_path / "roofline.png"
    options = ["--networks", "small", "--devices", "thor", "t4", "--batch", "1", "4", "--passes", "5", "2"]
    assert main([*options, "--json", str(files[0]), "--chart", str(files[1])]) == 0
    out = capsys.readouterr().out
    report = json.loads(files[0].read_text())
    assert len(report["rows"]) == 2 * (3 + 2) and set(report["devices"]) == {"thor", "t4"}
    assert report["assumed"]["visual_passes"] == 5 and report["rows"][0]["stages"]["visual"]["calls"] == 6
    assert out.count("to be confirmed on devices") == 3 and "5 visual and 2 cross-modal passes" in out
    row = next(r for r in report["rows"] if (r["device"], r["batch"], r["precision"]) == ("t4", 4, "int8"))
    line = next(line for line in out.partition("small, batch 4")[2].splitlines() if re.match(r"\| T4 +\| int8", line))
    cells = [cell.strip() for cell in line.strip("|").split("|")]
    assert float(cells[8]) == pytest.approx(row["total_us"] / 1000, rel=0.01)
    assert float(cells[10]) == pytest.approx(row["words_per_second"], rel=0.01)
    assert files[1].read_bytes().startswith(b"\x89PNG")
    assert {path.name for path in tmp_path.iterdir()} == {file.name for file in files}


def test_a_bundle_is_a_network(tiny_bundle, capsys):
    assert main(["--networks", str(tiny_bundle), "--devices", "h100", "--batch", "1"]) == 0
    assert f"\n{tiny_bundle.name}, batch 1: milliseconds" in capsys.readouterr().out
    manifest = json.loads((tiny_bundle / "manifest.json").read_text())
    assert list(network(str(tiny_bundle)).image_size) == manifest["config"]["image_size"]


@pytest.mark.parametrize("options, words", [
    (["--networks", "b17"], "--networks knows small, base16"),
    (["--networks", "small", "small"], "--networks: two are called small"),
    (["--devices", "nano"], "--devices knows orin-nano"),
    (["--batch", "0"], "--batch is 1 to 4096, not 0"),
    (["--passes", "3", "27"], "--passes are 1 to 26, not 3 and 27"),
    (["--kernels", "--chart", "chart.png"], "--kernels has its own passes and no chart"),
    (["--chart", "chart.gif"], "chart.gif: its name must end in .png"),
    (["--json", "no/such/folder.json"], "no/such/folder.json: its folder does not exist"),
])  # fmt: skip
def test_errors_are_one_line(options, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError):
        main(options)
    assert run_script("roofline.py", main, options) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_committed_predictions_are_todays():
    """Whoever changes an assumption writes them anew: python benchmarks/roofline.py --json ... --chart ..."""
    committed = json.loads((RESULTS / "roofline.json").read_text())
    networks = {name: SIZES[name] for name in ("small", "base16")}
    today = predictions(networks, DEVICES, (1, 32), arithmetic.PASSES)
    assert committed["assumed"] == today["assumed"] and committed["devices"] == today["devices"]
    assert len(committed["rows"]) == len(today["rows"]) == 2 * 2 * (9 * 2 + 4)
    for old, new in zip(committed["rows"], today["rows"]):
        assert (old["device"], old["precision"]) == (new["device"], new["precision"])
        assert old["total_us"] == pytest.approx(new["total_us"], rel=1e-4)
    assert table(committed).splitlines()[0] == table(today).splitlines()[0]


def test_only_the_switches_need_torch(tmp_path):
    def start(*options: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", SCRIPT, str(Path(roofline.__file__).resolve()), "--devices", "l4", *options]
        return subprocess.run(command, capture_output=True, text=True)

    for options in ((), ("--kernels",), ("--one-launch",)):
        done = start(*options)
        assert done.returncode == 0 and "predicted" in done.stdout.lower(), done.stderr
    for option, missing in (("--switches", "torch"), ("--streams", "onnx")):
        done = start(option)
        assert done.returncode == 2 and done.stderr.count("\n") == 1, done.stderr
        assert f"this report needs {missing}: pip install 'clip4str[gpu]'" in done.stderr
