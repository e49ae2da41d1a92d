"""The load generator: requests come when they are due, latency counts from then, and figures are what samples say."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from clip4str.benchmarks import serving
from clip4str.benchmarks.serving_load import serving_chart, targets
from clip4str.benchmarks.serving_load.arrivals import Refused, Sample, in_flight, poisson, reads_a_second, recovery
from clip4str.benchmarks.serving_load.load_figures import point, within_bar
from clip4str.benchmarks.serving_load.processor_time import resident_mb
from clip4str.benchmarks.serving_load.ray_server import RayServer
from clip4str.core.console import run_script
from clip4str.core.errors import UsageError
from clip4str.core.packaged import PACKAGED
from clip4str.runtime import Recognizer

PICTURES = [(b"a", "A"), (b"b", "B")]


class Standin:
    """Reads at once what it is asked, so many at a time; then it refuses."""

    def __init__(self, seconds: float, at_once: int = 1000) -> None:
        self.seconds, self.at_once, self.now, self.read = seconds, at_once, 0, 0
        self.what = "stand-in"

    async def __aenter__(self):
        return self

    async def __aexit__(self, *_):
        pass

    async def send(self, picture: bytes) -> str:
        if self.now >= self.at_once:
            raise Refused("too much")
        self.now += 1
        await asyncio.sleep(self.seconds)
        self.now -= 1
        self.read += 1
        return self.words[picture] if hasattr(self, "words") else picture.decode().upper()

    def counts(self) -> tuple[int, int]:
        return self.read, self.read // 2


def test_arrivals_are_poisson_and_do_not_wait_for_answers():
    target = Standin(0.5)
    samples = asyncio.run(poisson(target.send, PICTURES, 300, 1.0, seed=3))
    assert 240 < len(samples) < 360 and {sample.outcome for sample in samples} == {"read"}  # 300, deviation 17
    gaps = np.diff([sample.due for sample in samples])
    assert 0.7 < gaps.std() / gaps.mean() < 1.3  # exponential: 1
    assert all(sample.late >= 0.5 for sample in samples)


def test_a_generator_that_is_late_counts_it():
    """The server stands still for a while: requests that were due then count from when they were due."""

    async def blocked(picture: bytes) -> str:
        import time

        if not hasattr(blocked, "done"):
            blocked.done = True
            time.sleep(0.5)
        return picture.decode().upper()

    samples = asyncio.run(poisson(blocked, PICTURES, 100, 1.0))
    assert sum(sample.late > 0.2 for sample in samples) > 15


def test_a_closed_loop_keeps_so_many_going():
    target = Standin(0.02, at_once=4)
    samples = asyncio.run(in_flight(target.send, PICTURES, 4, 0.5))
    assert {sample.outcome for sample in samples} == {"read"} and len(samples) > 20
    samples = asyncio.run(in_flight(Standin(0.02, at_once=4).send, PICTURES, 5, 0.2))
    assert "refused" in {sample.outcome for sample in samples}


def test_recovery_is_the_time_until_answers_come_in_time_again():
    target, begin = Standin(0.001), time.monotonic()

    async def tired(picture: bytes) -> str:
        if time.monotonic() < begin + 0.4:
            raise Refused("too much")
        return await target.send(picture)

    assert 0.3 < asyncio.run(recovery(tired, PICTURES, 0.1)) < 0.7
    assert asyncio.run(recovery(Standin(0.05).send, PICTURES, 0.01, patience=0.2)) is None


def test_memory_is_that_of_descendants():
    before = resident_mb()
    with subprocess.Popen([sys.executable, "-c", "a = bytearray(50_000_000); print(flush=True); input()"],
                          stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:  # fmt: skip
        child.stdout.readline()
        assert 50 < resident_mb() - before < 100
        child.communicate(b"\n")
    assert resident_mb() < before + 10


def test_outcomes_are_told_apart():
    async def mixed(picture: bytes) -> str:
        if picture == b"x":
            raise ValueError("broken")
        return "B"

    samples = asyncio.run(poisson(mixed, [(b"a", "A"), (b"b", "B"), (b"x", "X")], 300, 0.3))
    assert {sample.outcome for sample in samples} == {"wrong", "read", "failed"}
    assert {sample.error for sample in samples} == {"", "broken"}


def test_points_say_what_samples_say():
    samples = [Sample(k / 100, k / 1000, "read") for k in range(100)] + [Sample(0.5, 0.002, "refused")] * 25
    found = point(samples, 125.0, 1.0, 100, 20)
    assert (found["read"], found["refused"], found["wrong"], found["failed"]) == (100, 25, 0, 0)
    assert found["p50_ms"] == pytest.approx(49.5) and found["p99_ms"] == pytest.approx(98.01)
    assert found["refused_p99_ms"] == 2.0 and found["pictures_a_batch"] == 5.0
    assert found["read_a_second"] == pytest.approx(100 / 1.089, abs=0.01)  # the last answer came then
    nothing = point([], 1.0, 1.0, 0, 0)
    assert nothing["p99_ms"] is None and nothing["pictures_a_batch"] is None


def test_the_bar_is_the_first_load_that_is_missed():
    def load(offered, p99, **lost):
        return {"offered": offered, "p99_ms": p99, "refused": 0, "wrong": 0, "failed": 0, **lost}

    assert within_bar([load(30, 99), load(10, 20), load(20, 50)])["offered"] == 30
    assert within_bar([load(10, 20), load(20, 120), load(30, 60)])["offered"] == 10
    assert within_bar([load(10, 20), load(20, 50, refused=1)])["offered"] == 10
    assert within_bar([load(10, 100)]) is None and within_bar([load(10, None)]) is None


def test_a_loop_reads_all_pictures_again_and_again():
    seen = []
    rate = reads_a_second(seen.append, [b"a", b"b", b"c"], 2, 0.05)
    assert rate > 0 and seen[1:4] == [[b"a", b"b"], [b"c", b"a"], [b"b", b"c"]]


def test_the_script_measures_prints_and_draws(tmp_path, monkeypatch, capsys):
    target = Standin(0.05)
    monkeypatch.setattr(serving, "SHARES", (0.5, 1.0))
    with Recognizer.load(PACKAGED, threads=1) as recognizer:
        files = [path.read_bytes() for path in sorted(serving.CROPS.glob("*.jpg"))]
        target.words = {file: word.text for file, word in zip(files, recognizer.read(files))}
    monkeypatch.setitem(targets.TARGETS, "triton", lambda setup: target)
    chart, file = tmp_path / "serving.png", tmp_path / "serving.json"
    options = ["--target", "triton", "--seconds", "1", "--instances", "1", "--bundle", str(PACKAGED)]
    code = run_script("serving.py", lambda _: serving.main([*options, "--json", str(file), "--chart", str(chart)]))
    out, report = capsys.readouterr().out, json.loads(file.read_text())
    assert code == 0, out
    assert report["overload"]["wrong"] == 0 and report["most"]["read"] > 50
    assert report["overload"]["processor_s"]["generator"] > 0
    assert report["overload"]["recovered_s"] < 5 and len(report["overload"]["memory_mb"]) == 2
    assert len(report["points"]) == len(serving.SHARES) and chart.read_bytes().startswith(b"\x89PNG")
    assert f"{report['points'][0]['offered']:.0f}" in out and "stand-in" in out
    target.words[files[0]] = "wrong"
    assert run_script("serving.py", lambda _: serving.main(options)) == 1
    target.words = dict.fromkeys(target.words, "wrong")
    assert run_script("serving.py", lambda _: serving.main(options)) == 2
    assert "stand-in read no picture rightly" in capsys.readouterr().err
    with pytest.raises(UsageError, match="--seconds is 1 to 3600"):
        serving.main([*options[:2], "--seconds", "0"])


@pytest.mark.parametrize("server", ["triton", "ray", "ray-haproxy"])
def test_the_committed_figures_are_a_report(tmp_path, monkeypatch, server):
    figures, new = [], serving_chart.new_figure
    monkeypatch.setattr(serving_chart, "new_figure", lambda *a, **k: figures.append(new(*a, **k)) or figures[-1])
    report = json.loads((Path(serving.__file__).parent / "results" / f"serving-{server}.json").read_text())
    assert all(one["wrong"] == one["failed"] == 0 for one in (*report["points"], report["overload"]))
    serving_chart.save_chart(report, tmp_path / "again.png")
    for axes in figures[0].axes:  # no point is cut by the frame
        assert axes.get_ylim()[1] > 1.05 * max(max(line.get_ydata()) for line in axes.lines[:1])


def test_a_ray_that_does_not_serve_is_ended_and_kept_its_token_to_itself(monkeypatch):
    """With stand-ins for Ray: what it is started with, and what is left of it."""
    told: list[object] = []

    def failing(*_, **__):
        raise RuntimeError("no room")

    ray, application, settings = map(ModuleType, ("ray", "application", "server_settings"))
    ray.__version__ = "0"
    ray.init = lambda address, **how: told.append((address, how["num_cpus"], os.environ.get("RAY_AUTH_TOKEN")))
    ray.serve = SimpleNamespace(start=lambda **_: None, run=failing, shutdown=lambda: told.append("serve"))
    ray.shutdown = lambda: told.append("ray")
    application.NAME, application.build = "clip4str", lambda given: given
    settings.VARIABLE, settings.Settings = "CLIP4STR_SERVE_TOKEN", lambda **given: SimpleNamespace(**given, inside=7)
    monkeypatch.setitem(sys.modules, "ray", ray)
    for module in (application, settings):
        monkeypatch.setitem(sys.modules, f"clip4str.serving.ray.{module.__name__}", module)
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: True)
    monkeypatch.setattr(os, "environ", {**os.environ, "RAY_ADDRESS": "somebody:6379", "RAY_AUTH_MODE": "disabled"})
    with pytest.raises(RuntimeError, match="no room"), RayServer(PACKAGED, instances=2):
        pass
    (address, cpus, token), *ended = told
    assert (address, cpus, len(token)) == ("local", 3, 64) and "RAY_AUTH_MODE" not in os.environ
    assert ended == ["serve", "ray"] and os.environ["CLIP4STR_SERVE_DOOR"] == "7"
