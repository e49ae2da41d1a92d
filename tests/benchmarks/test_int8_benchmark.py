"""benchmarks/int8.py: what its figures are, and what it says of them."""

from __future__ import annotations

import json
from importlib.util import find_spec

import pytest

from clip4str.benchmarks.int8 import OPENVINO, latency_report, main, verdict
from clip4str.benchmarks.latency_sides import STAGES, Turn
from clip4str.core.errors import UsageError


def turns(seconds, image):
    return [
        Turn(s, {stage: i if stage == "image" else 0.0 for stage in STAGES}, {}, []) for s, i in zip(seconds, image)
    ]


def test_ratios_are_of_turns_taken_side_by_side():
    # the machine was twice as slow in the second half: medians of times would tell nothing
    report = latency_report(
        4,
        {
            "float32": turns([2.0, 2.0, 4.0, 4.0], [1.0, 1.0, 2.0, 2.0]),
            "int8": turns([1.6, 1.6, 3.2, 3.2], [0.5, 0.5, 1.0, 1.0]),
        },
    )
    side = report["sides"]["int8"]
    assert side["ratio"] == {"quartile_1": 1.25, "median": 1.25, "quartile_3": 1.25}
    assert side["image_ratio"]["median"] == 2.0 and side["stages_ms"]["image"] == 750
    assert report["sides"]["float32"]["ratio"]["median"] == 1.0 and (report["batch"], report["turns"]) == (4, 4)


@pytest.mark.parametrize(
    "ratios, said",
    [
        ((1.2, 1.3, 1.4), "is faster than float32"),
        ((0.7, 0.8, 0.9), "is slower than float32"),
        ((0.9, 1.1, 1.2), "is not clearly faster"),
    ],
)
def test_the_verdict_goes_by_quartiles(ratios, said):
    figure = dict(zip(("quartile_1", "median", "quartile_3"), ratios))
    assert said in verdict([{"batch": 1, "sides": {"int8": {"ratio": figure}}}])


def test_a_whole_run(tmp_path, capsys):
    report = tmp_path / "int8.json"
    arguments = ["--random-weights", "small", "--batch", "2", "--repeat", "3", "--quiet", "--json", str(report)]
    arguments += ["--openvino"] if find_spec("openvino") else []
    assert main(arguments) == 0
    figures = json.loads(report.read_text())
    sides = figures["sides"]
    assert list(sides) == ["float32", "int8", "int8-dynamic"] and figures["network"] == "small"
    assert sides["int8"]["quantization"]["scheme"] == "qdq"
    assert sides["int8-dynamic"]["quantization"]["scheme"] == "dynamic"
    assert sides["int8"]["files"]["image.onnx"] < 0.5 * sides["float32"]["files"]["image.onnx"]
    timed = set(figures["latency"][0]["sides"])
    assert figures["latency"][0]["turns"] == 3 and timed - set(OPENVINO) == set(sides)
    assert not find_spec("openvino") or {"float32, openvino", "int8, openvino"} <= timed
    assert "float32 on this CPU" in capsys.readouterr().out


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--batch", "0"], "--batch is 1 or more"),
        (["--random-weights", "base16", "--data", "x"], "no --data"),
        (["--json", "nowhere/x.json"], "its folder does not exist"),
    ],
)
def test_mistakes_are_said_first(arguments, message):
    with pytest.raises(UsageError, match=message):
        main(arguments)
