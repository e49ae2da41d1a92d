"""Predictions of the switches: each does what kernels/options.py says it is for, where that is, and nowhere else."""

from __future__ import annotations

from dataclasses import replace

import pytest

from clip4str.benchmarks import roofline
from clip4str.benchmarks.devices import DEVICES
from clip4str.benchmarks.engine_launches import stage_launches
from clip4str.benchmarks.predictions import predict_program, stage
from clip4str.benchmarks.switches import ALL, BEFORE, graph_us, switch_predictions
from clip4str.kernels.options import NAMES, Options
from clip4str.model.sizes import SIZES

H100, ORIN, L4 = (DEVICES[name] for name in ("h100", "agx-orin", "l4"))
SHIPPED = Options()


def gain(device, size, batch, name) -> float:
    """Microseconds that it saves, of the time as shipped."""
    turned = replace(SHIPPED, **{name: not getattr(SHIPPED, name)})
    return graph_us(device, SIZES[size], batch, SHIPPED) - graph_us(device, SIZES[size], batch, turned)


@pytest.mark.parametrize("name", DEVICES)
@pytest.mark.parametrize("size", ["small", "base16"])
def test_few_words_as_shipped_are_the_program_itself(name, size):
    whole = predict_program(DEVICES[name], SIZES[size], 1)["total_us"]
    for options in (SHIPPED, BEFORE):
        assert graph_us(DEVICES[name], SIZES[size], 1, options) == pytest.approx(whole)


def test_launches_that_overlap_are_counted():
    """kernels/NOTES.md: 7 passes of 6 launches, 24 blocks of 3; half of a launch each. Hopper and newer alone."""
    for batch in (1, 64):
        assert gain(H100, "base16", batch, "dependent_launch") == pytest.approx(114 * 0.8)
    assert gain(ORIN, "base16", 1, "dependent_launch") == gain(L4, "base16", 1, "dependent_launch") == 0


def test_what_many_rows_gain_few_do_not():
    for name in ("library_residual", "three_stages", "wide_tiles", "descriptors"):
        assert gain(H100, "base16", 1, name) == 0
    assert gain(H100, "base16", 64, "library_residual") < 0, "turned off"
    assert gain(H100, "base16", 64, "three_stages") > gain(H100, "base16", 64, "wide_tiles") > 0
    assert gain(H100, "base16", 64, "descriptors") > gain(H100, "base16", 64, "three_stages")
    assert gain(L4, "base16", 64, "descriptors") == 0, "8.9"
    assert gain(DEVICES["thor"], "base16", 64, "descriptors") == 0, "it waits for its memory"
    assert gain(L4, "base16", 64, "three_stages") == 0 < gain(L4, "base16", 64, "wide_tiles")


def test_k_is_split_where_the_kernel_does():
    """L/14's `down` of one word, 24 layers from 9.5 to 8.6 us; not B/16's, not many rows."""
    assert gain(H100, "large", 1, "split_k") == pytest.approx(24 * 0.9, abs=2)
    assert (
        gain(H100, "base16", 1, "split_k")
        == gain(H100, "large", 64, "split_k")
        == gain(ORIN, "large", 1, "split_k")
        == 0
    )


def test_a_fork_hides_one_pass_and_last_passes_beside_it_two_more():
    one, many = (gain(H100, "base16", batch, "fork") for batch in (1, 64))
    assert 10 < one < 24 and 0 < many < 45
    three, of_many = (gain(H100, "base16", batch, "verify_beside") for batch in (1, 64))
    assert 2.5 * one < three < 3.5 * one and many < of_many < 4 * many


def test_what_is_hidden_is_not_saved_twice():
    """A launch of a pass that runs beside others saves nothing by beginning early."""
    alone, overlapping = (gain(H100, "base16", 1, name) for name in ("verify_beside", "dependent_launch"))
    both = graph_us(H100, SIZES["base16"], 1, SHIPPED) - graph_us(H100, SIZES["base16"], 1, ALL)
    short = gain(H100, "base16", 1, "short_attention")
    assert both == pytest.approx(alone + overlapping + short - 3 * 6 * 0.8 + 12 * 0.8)  # captions' is a launch of ours


def test_few_tokens_of_few_words_are_attended_to_in_one_launch():
    """B/16's captions, 12 layers, and both towers of the small network; not where programs would wait for others."""
    assert 12 * 0.5 < gain(H100, "base16", 1, "short_attention") < 12 * 1.6
    assert gain(H100, "base16", 64, "short_attention") == gain(ORIN, "base16", 4, "short_attention") == 0
    assert gain(H100, "small", 1, "short_attention") > 0 and gain(H100, "small", 64, "short_attention") > 0


def test_the_table(capsys):
    report = switch_predictions({"base16": SIZES["base16"]}, {"h100": H100}, [1, 64, 1])
    assert len(report["rows"]) == 2
    assert report["rows"][0]["turned_us"].keys() == {name for name in NAMES if not getattr(SHIPPED, name)}
    assert all(
        r["all_us"] < r["shipped_us"] <= r["before_us"] and r["one_us"] < r["engines_us"] for r in report["rows"]
    )
    assert roofline.main(["--switches", "--networks", "base16", "--devices", "h100", "--batch", "1", "64"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("Predicted, to be confirmed") and len(lines) == 2 + 2 + 2
    one, many = lines[-2:]
    assert "-14." in one and one.count("%") == 4 + 2 and many.count("%") == 6 + 2


def test_engines_of_eight_bits_stand_beside_those_in_one_launch():
    report = switch_predictions({"base16": SIZES["base16"]}, {"h100": H100, "agx-orin": ORIN}, [64])
    hopper, orin = report["rows"]
    assert hopper["eight_bits_us"].keys() == {"int8", "fp8"} and orin["eight_bits_us"].keys() == {"int8"}
    assert hopper["eight_bits_us"]["fp8"] < hopper["eight_bits_us"]["int8"] < hopper["one_us"]
    assert orin["eight_bits_us"]["int8"] < 0.8 * orin["one_us"]
    assert hopper["one_us"] - hopper["eight_bits_us"]["fp8"] == pytest.approx(
        sum(stage(H100, stage_launches(SIZES["base16"], name, 64, "fp16"))["us"] for name in ("image", "text"))
        - sum(stage(H100, stage_launches(SIZES["base16"], name, 64, "fp8"))["us"] for name in ("image", "text"))
    ), "our kernels, the copies and the host are the same"
