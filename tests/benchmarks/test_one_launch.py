"""Predictions of one launch: they count what the program sends, and cost what their parts do."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clip4str.benchmarks import one_launch, roofline
from clip4str.benchmarks.devices import DEVICES
from clip4str.benchmarks.one_launch import one_launch_predictions, one_launch_table, predict_one_launch
from clip4str.core.console import run_script
from clip4str.model.sizes import SIZES
from clip4str.runtime.backends.fixed_passes import DRAFTED, FIRST

ORIN, H100 = DEVICES["agx-orin"], DEVICES["h100"]
SMALL = SIZES["small"]
DRAFTING = replace(SMALL, draft_frames=1)


@pytest.mark.parametrize("config, passes", [(SMALL, FIRST), (DRAFTING, DRAFTED)])
def test_launches_between_the_towers_are_the_programs(config, passes):
    """Six a pass of few words; two tokenisers, two copies; a collapse."""
    refining = 2
    few = 6 * (passes.visual + passes.cross + refining) + 4 + (config.draft_frames > 0)
    assert predict_one_launch(ORIN, config, 1)["launches"] == few


def test_it_is_the_host_that_is_saved():
    for device in (ORIN, H100):
        for batch in (1, 32):
            row = predict_one_launch(device, SMALL, batch)
            idle = predict_one_launch(replace(device, host=0.0), SMALL, batch)
            host = device.host * (one_launch.BATCH_US + one_launch.ANSWER_US * batch)
            assert row["one_us"] - idle["one_us"] == pytest.approx(host)
            assert row["one_us"] < row["kernels_us"] < row["engines_us"]
            assert 0 < row["reread_us"] < row["resume_us"] < row["one_us"]
            gained = row["kernels_us"] - row["one_us"]
            assert gained > 0.4 * (row["kernels_us"] - idle["kernels_us"])


def test_half_of_the_small_networks_time_on_an_orin_lies_between_stages():
    assert 0.4 < predict_one_launch(ORIN, SMALL, 1)["between_share"] < 0.6
    assert predict_one_launch(ORIN, SIZES["base16"], 1)["between_share"] < 0.25


def test_the_table(capsys):
    report = one_launch_predictions({"small": SMALL}, {"h100": H100}, [1, 8, 1])
    lines = one_launch_table(report).splitlines()
    assert lines[0].startswith("Predicted, to be confirmed") and len(lines) == 2 + 2 + 2
    how = ["--one-launch", "--networks", "small", "--devices", "h100", "--batch", "1", "8"]
    assert roofline.main(how) == 0
    assert capsys.readouterr().out.splitlines() == lines


@pytest.mark.parametrize("extra", [["--kernels"], ["--streams"], ["--passes", "4", "1"], ["--chart", "x.png"]])
def test_other_reports_options(extra, capsys):
    assert run_script("roofline.py", roofline.main, ["--one-launch", *extra]) == 2
    assert capsys.readouterr().err.count("\n") == 1
