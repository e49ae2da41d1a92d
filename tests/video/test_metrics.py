"""The metrics as Prometheus would scrape them, against events counted here."""

import json
import re
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clips import needed, y4m

from clip4str.core.cli import main
from clip4str.core.errors import BackendError, UsageError
from clip4str.video import listening
from clip4str.video.events import Gap, Statistics, WordEnded
from clip4str.video.frames import Frame
from clip4str.video.options import listening_address
from clip4str.video.outputs import Metrics
from clip4str.video.outputs.metrics import CONNECTIONS, REASONS

needed("cv2", "video")
needed("rapidocr", "video")
parser = needed("prometheus_client", "metrics") and needed("prometheus_client.parser", "metrics")
from scenes import SMALL, video  # noqa: E402  (needs cv2)

from clip4str.video.reader import VideoReader  # noqa: E402
from clip4str.video.sources import open_source  # noqa: E402
from clip4str.video.sources.live import Newest  # noqa: E402

LONG = 20.0  # seconds that nothing here takes


def scraped(metrics):
    """{(sample's name, labels): value}"""
    return page(metrics.port)


def page(port):
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=LONG) as answer:
        text = answer.read().decode()
    found = {}
    for family in parser.text_string_to_metric_families(text):
        for sample in family.samples:
            key = sample.name, tuple(sorted(sample.labels.items()))
            assert key not in found
            found[key] = sample.value
    return found


def of(found, name, **labels):
    return found.get((f"clip4str_{name}", tuple(sorted(labels.items()))))


@pytest.fixture
def metrics():
    opened = Metrics("127.0.0.1", 0, ["rtsp://gate/1", "a.mp4", "a.mp4"], lambda: [Statistics(n) for n in range(3)])
    yield opened
    opened.close()
    opened.close()


def test_what_is_scraped_is_what_happened(recognizer):
    scenes = [video(replace(SMALL, speed=0.0, frames=frames), seed)[0] for frames, seed in ((12, 5), (9, 6))]
    scenes[1][4] = replace(scenes[1][4], broken="reconnected")
    scenes[1][6] = replace(scenes[1][6], damaged=True)
    names = ["one", "two"]
    reader = VideoReader(recognizer)
    detect, searches = reader.detector.detect, []
    reader.detector.detect = lambda frame: searches.append(frame) or detect(frame)
    metrics = Metrics("127.0.0.1", 0, names, reader.statistics)
    counted, frames, before, last = Counter(), Counter(), [], {}

    def watch(number, frame, shown):
        metrics.show(number, frame)
        frames[names[number]] += 1
        if sum(frames.values()) == 5:
            before.append(scraped(metrics))

    try:
        sources = [open_source(replayed(scene)) for scene in scenes]
        for event in reader.run(*sources, watch=watch):
            metrics.write(event)
            counted[type(event).__name__, names[event.source]] += 1
            if isinstance(event, WordEnded):
                counted["reads", names[event.source]] += event.reads
            if isinstance(event, Statistics):
                last[names[event.source]] = event
            if isinstance(event, Gap):
                counted[event.reason, names[event.source]] += 1
        found = scraped(metrics)
    finally:
        metrics.close()
    assert frames == {"one": 12, "two": 9}
    for name in names:
        assert of(found, "frames_total", source=name) == frames[name]
        assert of(found, "words_total", source=name) == counted["WordFound", name] > 0
        assert of(found, "latency_seconds_count", source=name) == frames[name]
        assert of(found, "latency_seconds_sum", source=name) > 0
        assert of(found, "up", source=name) == 1 and 0 <= of(found, "frame_age_seconds", source=name) < LONG
        assert of(found, "reads_total", source=name) == last[name].reads >= counted["reads", name] > 0
        for stage, milliseconds in last[name].milliseconds.items():
            assert of(found, "stage_seconds_total", source=name, stage=stage) == pytest.approx(milliseconds / 1000)
        assert of(found, "latency_seconds_bucket", source=name, le="+Inf") == frames[name]
    assert sum(of(found, "searches_total", source=name) for name in names) == len(searches) >= 2
    assert of(found, "gaps_total", source="two", reason="reconnected") == counted["reconnected", "two"] == 1
    assert of(found, "gaps_total", source="two", reason="damaged") == counted["damaged", "two"] == 1
    assert [of(found, "reconnects_total", source=name) for name in names] == [0, 1]
    assert [of(found, "frames_damaged_total", source=name) for name in names] == [0, 1]
    assert sum(of(before[0], "frames_total", source=name) for name in names) in (5, 6)  # while it runs, too
    assert found[("process_resident_memory_bytes", ())] > 1e6


def test_the_page_of_metrics_names_them_all(metrics):
    text = (Path(__file__).parents[2] / "docs" / "fleet.md").read_text(encoding="utf-8")
    with urllib.request.urlopen(f"http://127.0.0.1:{metrics.port}/metrics", timeout=LONG) as answer:
        served = re.findall(r"^# TYPE (clip4str_\w+) ", answer.read().decode(), re.MULTILINE)
    served = {name for name in served if not name.endswith("_created")}
    assert served == set(re.findall(r"^\| `(clip4str_\w+)` \|", text, re.MULTILINE))
    asked = re.findall(r"(clip4str_\w+?)(?:_bucket)?[\[ {]", text[text.index("| what | query |") :])
    assert len(asked) > 8 and set(asked) <= served


def replayed(frames):
    for frame in frames:
        yield replace(frame, arrived=time.monotonic())


def test_a_running_command_is_scraped(tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    file, frames = tmp_path / "a.jsonl", video(replace(SMALL, speed=0.0, frames=12), 5)[0]
    command = [sys.executable, "-m", "clip4str.core.cli", "video", "-", "--metrics", str(port), "--jsonl", str(file)]
    process = subprocess.Popen([*command, "--quiet", "--threads", "1"], stdin=subprocess.PIPE, stderr=subprocess.PIPE)
    process.stdin.write(y4m([frame.pixels for frame in frames]))
    process.stdin.flush()
    end, found, told, source = time.monotonic() + 3 * LONG, {}, -1, "standard input"
    # the last two frames are read once those after them have come, or the end
    while of(found, "frames_total", source=source) != 10 or of(found, "words_total", source=source) != told:
        assert time.monotonic() < end and process.poll() is None
        try:
            found = page(port)
        except OSError:
            time.sleep(0.05)
        told = file.read_text().count('"word_found"') if file.exists() else -1
    assert told > 0 and of(found, "up", source=source) == 1
    _, err = process.communicate(timeout=LONG)
    last = json.loads(file.read_text().splitlines()[-1])
    assert process.returncode == 0 and last["frames"] == 12 and b"rror" not in err
    assert f"metrics at http://127.0.0.1:{port}/metrics\n".encode() in err


def test_dropped_frames_are_told_of_a_live_source(recognizer):
    frames, _ = video(replace(SMALL, speed=0.0, frames=6), 5)
    source = Newest(open_source(frames))
    source._thread.join(LONG)
    reader = VideoReader(recognizer)
    metrics = Metrics("127.0.0.1", 0, [source.name], reader.statistics)
    for event in reader.run(source, watch=lambda number, frame, _: metrics.show(number, frame)):
        metrics.write(event)
    found = scraped(metrics)
    metrics.close()
    (label,) = metrics.labels
    assert of(found, "frames_dropped_total", source=label) == 5 and of(found, "frames_total", source=label) == 1
    assert of(found, "latency_seconds_count", source=label) == 1


def test_a_source_is_up_as_long_as_frames_come(metrics, monkeypatch):
    assert metrics.labels == ["rtsp://gate/1", "a.mp4", "a.mp4 #3"]
    found = scraped(metrics)
    assert [of(found, "up", source=label) for label in metrics.labels] == [0, 0, 0]
    assert of(found, "frame_age_seconds", source="a.mp4") is None
    metrics.show(1, Frame(np.zeros((4, 4, 3), np.uint8), 0.0))
    found = scraped(metrics)
    assert [of(found, "up", source=label) for label in metrics.labels] == [0, 1, 0]
    metrics._came["a.mp4"] -= 11
    found = scraped(metrics)
    assert of(found, "up", source="a.mp4") == 0 and of(found, "frame_age_seconds", source="a.mp4") >= 11


def test_reasons_of_ones_own_do_not_make_series_without_end(metrics):
    for number in range(100):
        metrics.write(Gap(0, 0.0, 1.0, f"reason {number}"))
    found = scraped(metrics)
    reasons = {dict(labels)["reason"]: v for (name, labels), v in found.items() if name == "clip4str_gaps_total"}
    assert len(reasons) == REASONS + 1 and reasons["other"] == 100 - REASONS


def test_those_who_connect_and_say_nothing_do_not_keep_others_out_for_ever(metrics, monkeypatch):
    monkeypatch.setattr(listening, "PATIENCE", 1.0)
    silent = [socket.create_connection(("127.0.0.1", metrics.port)) for _ in range(CONNECTIONS + 4)]
    for connection in silent:
        connection.settimeout(LONG)
        assert connection.recv(1) == b""  # cut off: at once, or after its patience
    while metrics._server._due:  # their threads end a moment later
        time.sleep(0.005)
    assert scraped(metrics)
    assert sum(thread.name.startswith("Thread-") for thread in threading.enumerate()) <= CONNECTIONS


def test_of_many_who_connect_at_once_some_are_turned_away(monkeypatch):
    monkeypatch.setattr(listening, "PATIENCE", 10 * LONG)
    opened = Metrics("127.0.0.1", 0, ["a"], list)
    silent = [socket.create_connection(("127.0.0.1", opened.port)) for _ in range(CONNECTIONS)]
    while len(opened._server._due) < CONNECTIONS:
        time.sleep(0.005)
    with socket.create_connection(("127.0.0.1", opened.port), timeout=LONG) as one_more:
        assert one_more.recv(1) == b""
    for connection in silent:
        connection.close()
    while opened._server._due:
        time.sleep(0.005)
    assert scraped(opened)
    opened.close()


@pytest.mark.parametrize("text, host, port", [("9464", "127.0.0.1", 9464), ("0.0.0.0:1", "0.0.0.0", 1),
                                              ("[::1]:0", "::1", 0), ("localhost:80", "localhost", 80)])  # fmt: skip
def test_without_a_host_it_is_this_machine_alone(text, host, port):
    assert listening_address(text, "--metrics") == (host, port)


@pytest.mark.parametrize("text", ["", ":", "a", "-1", "65536", "::1:80", "a b:80", "http://a:80", "80:", ":80"])
def test_what_is_no_address_is_one_line(text, capsys):
    assert main(["video", "a.mp4", f"--metrics={text}"]) == 2
    assert "--metrics is a port or HOST:PORT" in capsys.readouterr().err


def test_a_port_that_is_taken_is_one_line(metrics):
    with pytest.raises(
        UsageError, match=rf"--metrics 127.0.0.1:{metrics.port}: cannot be listened at: another program"
    ):
        Metrics("127.0.0.1", metrics.port, ["a"], list)
    with pytest.raises(UsageError, match="cannot be listened at"):
        Metrics("no.such.host.invalid", 80, ["a"], list)


def test_it_listens_at_loopback_alone_and_no_longer_once_closed():
    opened = Metrics("127.0.0.1", 0, ["a"], list)
    assert opened.host == "127.0.0.1"
    with pytest.raises(OSError):
        urllib.request.urlopen(f"http://127.0.0.2:{opened.port}/metrics", timeout=1)
    opened.close()
    with pytest.raises(urllib.error.URLError):
        scraped(opened)


def test_without_its_library_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "prometheus_client", None)
    with pytest.raises(BackendError, match=r"pip install 'clip4str\[metrics\]'"):
        Metrics("127.0.0.1", 0, ["a"], list)
