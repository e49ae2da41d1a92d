"""The soak: what it calls growth, what it finds, and a run of seconds."""

from __future__ import annotations

import json
import threading
import time

import numpy as np
import pytest

from clip4str.benchmarks import soak
from clip4str.benchmarks.soak_figures import LatencyLog, judged, summary
from clip4str.core.errors import UsageError
from clip4str.runtime.recognizer import Recognizer

GOOD = {"changed": [], "errors": [], "refused": 3, "pictures": 1000}


def samples(grows: float, noise: float = 2.0, minutes: int = 30, **more: object) -> list[dict]:
    """Two a minute: memory that grows by so many MB an hour, beside noise, a spike and a warm-up of 100 MB."""
    random = np.random.default_rng(0)
    made = []
    for k in range(4 * minutes):
        hours = k / 240
        rss = 300 + grows * hours + noise * random.standard_normal() + (80 if k == 90 else 0) - max(0, 100 - 10 * k)
        made.append({
            "minutes": 60 * hours, "rss_mb": 2 * rss, "allocated_mb": rss, "handles": 9 + (k % 7 == 0), "threads": 6,
            "p50_ms": 20.0, "p99_ms": None if k % 2 else 30.0, "reads": 10, **{n: f(k) for n, f in more.items()},
        })  # fmt: skip
    return made


@pytest.mark.parametrize(("grows", "result"), [(0.0, "kept"), (6.0, "missed"), (100.0, "missed"), (-5.0, "kept")])
def test_growing_memory_misses_the_bar_and_noise_does_not(grows, result):
    found = summary(samples(grows, noise=0.3))
    assert found["memory"]["slope_mb_per_hour"] == pytest.approx(grows, abs=0.9)
    assert found["memory"]["low"] < grows < found["memory"]["high"]
    assert found["resident"]["slope_mb_per_hour"] == pytest.approx(2 * grows, abs=1.8)
    assert [v["result"] for v in judged({**GOOD, **found}) if "memory" in v["what"]] == [result]


def test_a_slope_over_minutes_is_not_judged():
    verdict = judged({**GOOD, **summary(samples(50.0, minutes=5))})[-1]
    assert verdict["result"] == "not judged" and "10 minutes" in verdict["what"]


def test_handles_left_open_changed_words_and_errors_miss_their_bars():
    report = {**GOOD, **summary(samples(0.0, handles=lambda k: 9 + k // 20))}
    assert [v["result"] for v in judged(report)][:4] == ["kept", "kept", "missed", "kept"]
    report = {**GOOD, **summary(samples(0.0)), "changed": ["a became b"], "errors": ["x"]}
    assert [v["result"] for v in judged(report)][:3] == ["missed", "missed", "kept"]


def test_the_latency_log_gives_percentiles_and_does_not_grow():
    log, random = LatencyLog(), np.random.default_rng(0)
    values = random.lognormal(3, 0.5, 5000)
    size = log._counts.nbytes
    for value in values:
        log.add(value)
    found = log.next()
    assert found["reads"] == 5000 and log._counts.nbytes == size
    for name, percent in (("p50_ms", 50), ("p99_ms", 99)):
        assert found[name] == pytest.approx(np.percentile(values, percent), rel=0.03)
    assert log.next() == {"reads": 0, "p50_ms": None, "p99_ms": None}
    log.add(1e9)
    log.add(0)
    assert log.next()["reads"] == 2


@pytest.fixture
def few(monkeypatch):
    """Eight small pictures, so that seconds are enough on a busy machine, too."""
    made = soak.pictures
    monkeypatch.setattr(soak, "pictures", lambda crops: [p for p in made(crops[:8]) if not isinstance(p, bytes)][:8])


def test_a_run_of_seconds(tiny_bundle, tmp_path, capsys, few):
    pytest.importorskip("matplotlib")
    before = threading.active_count()
    code = soak.main(["--minutes", "0.05", "--threads", "2", "--reopen", "0.3", "--bundle", str(tiny_bundle), "--json",
                      str(tmp_path / "soak.json"), "--chart", str(tmp_path / "soak.png")])  # fmt: skip
    report = json.loads((tmp_path / "soak.json").read_text())
    out = capsys.readouterr().out
    assert "0 words changed" in out and code == any(v["result"] == "missed" for v in report["verdicts"]), out
    assert report["pictures"] >= 2 and report["refused"] >= 1 and report["opened"] >= 1 and len(report["samples"]) >= 4
    assert not report["errors"] and report["largest_change_of_confidence"] < 1e-3
    assert report["command"].startswith("python benchmarks/soak.py --minutes 0.05")
    assert (tmp_path / "soak.png").read_bytes().startswith(b"\x89PNG")
    assert threading.active_count() == before


def test_all_forms_and_sizes_are_read():
    crops = sorted(soak.CROPS.glob("*.jpg"))[:12]
    made = soak.pictures(crops)
    assert len(made) == 3 * len(crops)
    heads = {p[:4] if isinstance(p, bytes) else type(p).__name__ for p in made}
    assert len(heads) >= 8 and {"ndarray", "Image"} <= heads
    widths = {p.shape[1] for p in made if isinstance(p, np.ndarray)}
    assert max(widths) > 10 * min(widths)


def test_a_word_that_changes_is_found(tiny_bundle, monkeypatch, capsys, few):
    read, calls = Recognizer.read, []

    def forgetful(self, images):
        words = read(self, images)
        calls.append(1)
        return [type(words[0])("other", 0.5, ()), *words[1:]] if len(calls) > 9 else words

    monkeypatch.setattr(Recognizer, "read", forgetful)
    assert soak.main(["--minutes", "0.05", "--threads", "1", "--bundle", str(tiny_bundle), "--reopen", "0"]) == 1
    said = capsys.readouterr()
    assert "missed" in said.out and "became 'other'" in said.err


def test_a_reader_that_fails_ends_the_run(tiny_bundle, monkeypatch, capsys, few):
    start = time.monotonic()
    monkeypatch.setattr(soak.Soak, "_compared", lambda self, recognizer, rows: 1 / 0)
    assert soak.main(["--minutes", "5", "--threads", "2", "--bundle", str(tiny_bundle)]) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err and time.monotonic() - start < 150


@pytest.mark.parametrize(
    "options", [["--minutes", "0"], ["--threads", "0"], ["--reopen", "-1"], ["--json", "/no/such/a.json"]]
)
def test_bad_options_are_refused_before_anything_is_read(options):
    with pytest.raises(UsageError):
        soak.main(options)
