"""Word events on a real broker, mosquitto, as an independent subscriber gets them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from brokers import Broker, Subscriber, free_port, until

sys.path.insert(0, str(Path(__file__).parents[1] / "video"))
from clips import needed, y4m

from clip4str.core.errors import UsageError
from clip4str.video.events import WordChanged, WordEnded, WordFound
from clip4str.video.outputs import Jsonl, Mqtt

pytestmark = pytest.mark.debian("mosquitto", "mosquitto-clients")
needed("paho", "mqtt")
QUAD = np.array([[0, 0], [40, 0], [40, 10], [0, 10]], np.float32)
NAMES = ["rtsp://gate/1", "yard.mp4"]
REMEMBERED = ("-c", "-i", "watcher", "-k", "5")  # a subscriber that the broker keeps messages for while it is away


def ended(track, source=0, text="Wörd"):
    return WordEnded(source, track, text, 0.9, 1.0, 2.0, 1.5, QUAD, 3, 9, "sign")


def address(broker, topic="clip4str", password=Broker.PASSWORD):
    return f"mqtt://{broker.USER}:{quote(password, safe='')}@127.0.0.1:{broker.port}/{topic}"


def words(subscriber):
    """(topic, track) of ended words, those that came twice once."""
    found = []
    for line in subscriber.lines:
        _, topic, payload = line.split(" ", 2)
        if topic.endswith("/word_ended"):
            found.append((topic, json.loads(payload)["track"]))
    return list(dict.fromkeys(found))


def surviving(folder):
    """A broker that has written down what it took before it was killed."""
    return Broker(folder, "persistence true", "autosave_on_changes true", "autosave_interval 1",
                  f"persistence_location {folder}/")  # fmt: skip


@pytest.fixture
def broker(tmp_path):
    with Broker(tmp_path) as running:
        yield running


def test_events_come_as_their_json_lines_and_the_topic_says_what_they_are(broker, tmp_path):
    events = [WordFound(0, 1, 1.0, 0.5, "A", 0.6, QUAD), WordChanged(0, 1, 2.0, "AB", "A", 0.8, QUAD), ended(1),
              ended(7, source=1)]  # fmt: skip
    file = Jsonl(tmp_path / "words.jsonl", NAMES)
    with Subscriber(broker, "street/#") as subscriber:
        sink = Mqtt(address(broker, "street"), NAMES)
        until(lambda: len(subscriber.lines) == 2)
        for event in events:
            sink.write(event)
            file.write(event)
        sink.close()
        sink.close()
        until(lambda: len(subscriber.lines) == 7)
    file.close()
    first, *lines = (tmp_path / "words.jsonl").read_text(encoding="utf-8").splitlines()
    topics = ["street/gate_1/word_found", "street/gate_1/word_changed", "street/gate_1/word_ended",
              "street/yard.mp4/word_ended"]  # fmt: skip
    assert subscriber.lines == [
        "0 street/available online",
        f"0 street/sources {first}",
        *(f"0 {topic} {line}" for topic, line in zip(topics, lines, strict=True)),
        "0 street/available offline",
    ]


def test_who_comes_later_learns_whether_it_runs(broker):
    sink = Mqtt(address(broker), NAMES)
    until(lambda: sink._connected)
    with Subscriber(broker, "clip4str/#") as subscriber:
        until(lambda: len(subscriber.lines) == 2)
    assert subscriber.lines[0] == "1 clip4str/available online" and '"names": ["rtsp://gate/1"' in subscriber.lines[1]
    sink.close()
    with Subscriber(broker, "clip4str/available", "-C", "1") as subscriber:
        until(lambda: subscriber.lines)
    assert subscriber.lines == ["1 clip4str/available offline"]


def test_a_reader_that_is_killed_is_told_to_be_offline_by_the_broker(broker):
    code = f"from clip4str.video.outputs import Mqtt; import time; Mqtt({address(broker)!r}); time.sleep(60)"
    with Subscriber(broker, "clip4str/available") as subscriber:
        process = subprocess.Popen([sys.executable, "-c", code])
        until(lambda: subscriber.lines == ["0 clip4str/available online"])
        process.kill()
        process.wait()
        until(lambda: subscriber.lines == ["0 clip4str/available online", "0 clip4str/available offline"])


def test_a_broker_that_is_killed_and_comes_back_gets_every_word_in_its_order(tmp_path):
    said = []
    with surviving(tmp_path) as broker, Subscriber(broker, "clip4str/#", *REMEMBERED) as subscriber:
        sink = Mqtt(address(broker), NAMES, say=said.append)
        until(lambda: any("online" in line for line in subscriber.lines))
        for track in range(100):
            sink.write(ended(track))
        until(lambda: len(words(subscriber)) == 100)
        broker.kill()
        for track in range(100, 200):
            sink.write(ended(track))
        until(lambda: said)
        broker.start()
        until(lambda: len(said) == 2)
        for track in range(200, 300):
            sink.write(ended(track))
        sink.close()
        until(lambda: len(words(subscriber)) == 300)
    assert words(subscriber) == [("clip4str/gate_1/word_ended", track) for track in range(300)]
    assert "not connected (" in said[0] and said[1].endswith(": connected") and len(said) == 2
    assert not any(secret in line for line in said for secret in (Broker.PASSWORD, quote(Broker.PASSWORD, safe="")))


def test_a_broker_killed_in_the_midst_of_many_words_loses_and_mixes_none(tmp_path):
    with surviving(tmp_path) as broker, Subscriber(broker, "clip4str/#", *REMEMBERED) as subscriber:
        sink = Mqtt(address(broker), NAMES, say=lambda _: None)
        until(lambda: any("online" in line for line in subscriber.lines))
        for track in range(2000):
            sink.write(ended(track))
        until(lambda: len(sink._waiting) < 1500)
        broker.kill()
        assert sink._waiting  # it was in the midst
        broker.start()
        sink.close()
        # what a killed broker had acknowledged, and not yet written down, is the broker's loss
        until(lambda: words(subscriber)[-1:] == [("clip4str/gate_1/word_ended", 1999)])
    tracks = [track for _, track in words(subscriber)]
    assert tracks == sorted(tracks) and len(tracks) > 1000 and not (sink.lost or sink.left_out)


def test_a_broker_that_is_not_there_yet_is_waited_for(tmp_path):
    said, broker = [], Broker(tmp_path, port=free_port())
    sink = Mqtt(address(broker), NAMES, say=said.append)
    for track in range(30):
        sink.write(ended(track))
    assert len(said) == 1 and "not connected (Connection refused); tried again" in said[0]
    with broker, Subscriber(broker, "clip4str/#") as subscriber:
        until(lambda: any("online" in line for line in subscriber.lines) or sink._connected)
        sink.close()
        with Subscriber(broker, "clip4str/available", "-C", "1") as later:
            until(lambda: later.lines)
    assert later.lines == ["1 clip4str/available offline"] and not sink._waiting and not sink._flight


@pytest.mark.parametrize("user", [None, "camera", "stranger"])
def test_a_wrong_password_is_one_line_without_it(broker, user):
    named = f"mqtt://{user + '@' if user else ''}127.0.0.1:{broker.port}/a"
    environment = {**os.environ, **({} if user is None else {"CLIP4STR_MQTT_PASSWORD": "letmein%2F"})}
    done = run(
        "video",
        "-",
        "--mqtt",
        named,
        "--quiet",
        stdin=y4m([np.full((64, 96, 3), 128, np.uint8)] * 2),
        environment=environment,
    )
    (line,) = done.stderr.strip().splitlines()[-1:]
    assert done.returncode == 2 and "the connection is refused (Not authorized): " in line
    assert (
        line.startswith(f"clip4str video: error: mqtt://127.0.0.1:{broker.port}/a: ") and "letmein" not in done.stderr
    )
    assert done.stdout == "" and "Traceback" not in done.stderr


def test_the_command_sends_what_it_writes(broker, tmp_path, street):
    environment = {**os.environ, "CLIP4STR_MQTT_PASSWORD": Broker.PASSWORD}
    named = f"mqtt://{broker.USER}@127.0.0.1:{broker.port}"
    with Subscriber(broker, "clip4str/+/+") as subscriber:
        done = run("video", "-", "--mqtt", named, "--jsonl", str(tmp_path / "a.jsonl"), "--quiet", "--threads", "1",
                   stdin=street, environment=environment)  # fmt: skip
        assert done.returncode == 0, done.stderr
        lines = (tmp_path / "a.jsonl").read_text(encoding="utf-8").splitlines()[1:]
        until(lambda: len(subscriber.lines) == len(lines))
    assert [line.split(" ", 2)[2] for line in subscriber.lines] == lines
    assert sum("word_ended" in line for line in lines) >= 3 and Broker.PASSWORD not in done.stderr


def test_what_was_not_delivered_is_said_at_the_end(tmp_path):
    sink = Mqtt(f"mqtt://127.0.0.1:{free_port()}", NAMES, say=lambda _: None, patience=0.2)
    for track in range(3):
        sink.write(ended(track))
    sink.write(WordFound(0, 9, 1.0, 0.5, "A", 0.6, QUAD))
    with pytest.raises(
        UsageError, match=r"3 words and gaps and 1 other events were not delivered \(Connection refused"
    ):
        sink.close()
    sink.close()


@pytest.mark.parametrize("trusted", [True, False])
def test_over_tls_the_brokers_certificate_is_checked(tmp_path, trusted):
    certificate, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
                    "-days", "2", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost", "-keyout", key,
                    "-out", certificate], check=True, capture_output=True)  # fmt: skip
    with Broker(tmp_path, f"certfile {certificate}", f"keyfile {key}") as broker:
        code = ("import sys; from clip4str.video.outputs import Mqtt; from clip4str.core.errors import UsageError\n"
                "try: Mqtt(sys.argv[1]).close()\nexcept UsageError as error: print(error)")  # fmt: skip
        named = address(broker).replace("mqtt://", "mqtts://").replace("127.0.0.1", "localhost")
        environment = {**os.environ, **({"SSL_CERT_FILE": str(certificate)} if trusted else {})}
        done = subprocess.run([sys.executable, "-c", code, named], env=environment, capture_output=True, text=True)
        assert done.stderr == "" and done.returncode == 0
        assert bool(done.stdout) != trusted and ("certificate verify failed" in done.stdout) != trusted
        assert Broker.PASSWORD not in done.stdout
        if trusted:
            with Subscriber(broker, "clip4str/available", "--cafile", str(certificate)) as subscriber:
                until(lambda: subscriber.lines == ["1 clip4str/available offline"])


def run(*arguments, stdin=b"", environment=None):
    command = [sys.executable, "-m", "clip4str.core.cli", *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, env=environment, timeout=300)
    return subprocess.CompletedProcess(command, done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture(scope="module")
def street():
    from scenes import SMALL, video

    return y4m([frame.pixels for frame in video(replace(SMALL, speed=0.0, frames=12), 5)[0]])
