"""What the benchmarks of failing cameras call a lost word, a late recovery, and growth. tests/live runs them."""

from __future__ import annotations

import importlib.util
import time

import numpy as np
import pytest
from PIL import Image

from clip4str.benchmarks import live_soak, recovery
from clip4str.benchmarks.live.failures import FAILURES, UNSEEN
from clip4str.benchmarks.live.watch import CLIENTS, Watch
from clip4str.benchmarks.soak_figures import summary
from clip4str.core.errors import UsageError
from clip4str.video.events import Gap, WordEnded, WordFound
from clip4str.video.frames import Frame

QUAD = np.zeros((4, 2), np.float32)


def found(source, track):
    return WordFound(source, track, 1.0, 1.0, "STATION", 0.9, QUAD)


def ended(source, track):
    return WordEnded(source, track, "STATION", 0.9, 1.0, 2.0, 1.5, QUAD, 3, 9)


@pytest.mark.parametrize(
    "events, lost",
    [
        ([found(0, 1), ended(0, 1), found(1, 1), ended(1, 1)], 0),
        ([found(0, 1), found(1, 1), ended(1, 1)], 1),
        ([found(0, 1), ended(1, 1)], 2),
        ([found(0, 1), ended(0, 1), ended(0, 1)], 1),
        ([found(0, 1), found(0, 1), ended(0, 1)], 1),
    ],
)
def test_each_word_that_was_found_is_to_end_once(events, lost):
    watch = Watch()
    for event in events:
        watch.event(event)
    assert watch.lost == lost


def test_a_recovery_is_the_first_broken_frame_behind_the_break_and_times_that_go_back_are_counted():
    watch, pixels = Watch(), np.zeros((4, 4, 3), np.uint8)
    watch.frame(0, Frame(pixels, 1.0, 0, broken="reconnected"), [])
    broke = time.monotonic()
    watch.frame(0, Frame(pixels, 1.1, 1), [])
    assert watch.recovered(0, broke, 0.01) is None
    watch.frame(0, Frame(pixels, 1.1, 2, broken="stalled"), [])
    seen = watch.recovered(0, broke, 0.01)
    assert broke <= seen <= time.monotonic() and watch.recovered(1, broke, 0.01) is None
    assert watch.back_steps == 1
    watch.event(Gap(1, 1.0, 2.0, "stalled"))
    assert watch.gaps == {f"stalled ({CLIENTS[1]})": 1}


def report(**changed):
    samples = [
        {"minutes": k / 4, "rss_mb": 300.0, "handles": 9, "threads": 8, "p50_ms": 20.0, "p99_ms": 30.0, "reads": 5,
         "allocated_mb": 170.0} for k in range(120)
    ]  # fmt: skip
    outages = [
        {"minutes": 1.0, "failure": name, "client": client, "away": 3.0, "recovery": 1.0}
        for name in FAILURES for client in CLIENTS if (name, client) not in UNSEEN
    ]  # fmt: skip
    made = {"words": {"found": 9, "lost": 0}, "frames": 99, "back_steps": 0, "error": "", "outages": outages,
            "minutes": 30.0, "bundle": "small", "machine": {"cpu": "a CPU", "cores": 2, "load_before": 0.1},
            **summary(samples), "samples": samples}  # fmt: skip
    made.update(changed)
    return {**made, "recoveries": live_soak.recoveries(made["outages"])}


def results(**changed):
    return [verdict["result"] for verdict in live_soak.verdicts(report(**changed))]


def test_bars_of_the_soak_are_kept_and_missed():
    outage = report()["outages"][2]
    assert set(results()) == {"kept"} and len(results()) == 7
    assert results(words={"found": 9, "lost": 1})[0] == "missed"
    assert results(back_steps=1)[1] == "missed" and results(error="OSError: full")[2] == "missed"
    assert results(outages=[{**outage, "recovery": 2.1}])[3] == "missed"
    assert results(outages=[{**outage, "recovery": None}])[3] == "missed"
    assert results(outages=[{**outage, "failure": "locked", "recovery": 4.0}])[3] == "kept"  # by choice
    assert live_soak.recoveries([{**outage, "recovery": None}, {**outage, "recovery": 1.5}]) == {
        outage["failure"]: {"outages": 2, "not_back": 1, "median": 1.5, "longest": 1.5}
    }


def test_memory_is_told_of_what_is_held_at_rest_where_there_is_enough_of_that():
    busy = report()["samples"]
    rest = [{**each, "allocated_mb": 100.0 + 2.0 * k / 240, "kept_free_mb": 30.0} for k, each in enumerate(busy)]
    found = live_soak.at_rest(rest)
    assert set(found) == {"memory", "resident", "kept_free"}
    assert found["memory"]["slope_mb_per_hour"] == pytest.approx(2.0, abs=0.01)
    assert live_soak.at_rest(rest[: live_soak.ENOUGH - 1]) == {}
    assert results(**found)[-1] == "missed"


@pytest.mark.skipif(importlib.util.find_spec("matplotlib") is None, reason="needs matplotlib")
def test_the_chart_is_drawn(tmp_path):
    from clip4str.benchmarks.live_soak_chart import save_chart

    save_chart(report(), tmp_path / "soak.png")
    with Image.open(tmp_path / "soak.png") as picture:
        assert len(picture.convert("L").getcolors(999999)) > 50


def test_recoveries_by_rate_kind_and_client():
    rows = [{"rate": 25, "kind": "killed", "away": 1.0, "client": "av", "s": s} for s in (0.5, 1.5, 2.5, None)]
    rows.append({"rate": 10, "kind": "killed", "away": 1.0, "client": "av", "s": None})
    first, second = recovery.summary(rows)
    assert first == {
        "rate": 25,
        "kind": "killed",
        "client": "av",
        "outages": 4,
        "median": 1.5,
        "longest": 2.5,
        "late": 2,
    }
    assert (second["median"], second["longest"], second["late"]) == (None, None, 1)


@pytest.mark.parametrize("bad", [["--lengths", "0"], ["--rates", "0"], ["--rates", "99"]])
def test_outages_that_cannot_be_are_refused(bad):
    with pytest.raises(UsageError, match="--lengths are"):
        recovery.main(bad)


@pytest.mark.parametrize("bad", [["--minutes", "0.1"], ["--every", "5"]])
def test_a_soak_that_is_too_short_is_refused(bad):
    with pytest.raises(UsageError, match="--every 13 to 3600 seconds"):
        live_soak.main(bad)
