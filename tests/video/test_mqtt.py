"""Where a broker is named, and what waits for one; with a real one: tests/live/test_mqtt_broker.py."""

import json
import socket
import sys
import threading
import time

import numpy as np
import pytest
from clips import needed

from clip4str.core.cli import main
from clip4str.core.errors import BackendError, UsageError
from clip4str.video.events import Gap, Statistics, WordChanged, WordEnded
from clip4str.video.outputs import Mqtt
from clip4str.video.outputs.mqtt import IN_FLIGHT
from clip4str.video.outputs.mqtt_address import address_of, levels

needed("paho", "mqtt")
QUAD = np.zeros((4, 2), np.float32)
NOBODY = "mqtt://127.0.0.1:1/words"  # a port that nobody listens at


def ended(track):
    return WordEnded(0, track, "A", 1.0, 0.0, 1.0, 0.0, QUAD, 1, 1)


@pytest.mark.parametrize(
    "text, host, port, topic, tls, user, password",
    [
        ("mqtt://broker", "broker", 1883, "clip4str", False, None, None),
        ("mqtts://broker/", "broker", 8883, "clip4str", True, None, None),
        ("MQTT://b:1/street/gate 1/", "b", 1, "street/gate 1", False, None, None),
        ("mqtt://me:a%2Fb%40%23:c@[::1]:1884/x", "::1", 1884, "x", False, "me", "a/b@#:c"),
        ("mqtt://me:@b", "b", 1883, "clip4str", False, "me", ""),
        ("mqtt://me@b/caf%C3%A9", "b", 1883, "café", False, "me", None),
    ],
)
def test_an_address_of_a_broker(text, host, port, topic, tls, user, password):
    address = address_of(text)
    assert address[1:] == (host, port, topic, tls, user, password)
    assert not user or user not in address.name


def test_the_password_may_be_in_the_environment(monkeypatch):
    monkeypatch.setenv("CLIP4STR_MQTT_PASSWORD", "h/i@#")
    assert address_of("mqtt://me@b").password == "h/i@#" and address_of("mqtt://me:own@b").password == "own"
    with pytest.raises(UsageError, match="there is a password, but no user"):
        address_of("mqtt://b")


@pytest.mark.parametrize(
    "text",
    [
        "broker", "http://me:s3cret@b", "mqtt://", "mqtt:///topic", "mqtt://me:s3cret@", "mqtt://:s3cret@b",
        "mqtt://me:s3cret@b:port/", "mqtt://me:s3cret@b:99999", "mqtt://me:1#s3cret@b/t", "mqtt://me:1/s3cret@b/t",
        "mqtt://me:1?s3cret@b/t", "mqtt://me:s3cret@b/a/+/c", "mqtt://me:s3cret@b/%23", "mqtt://me:s3cret@b/$SYS",
        "mqtt://me:s3cret@b/%00", "mqtt://me:s3cret@b" + "/long" * 60, "mqtt://me:s3cret@" + "h" * 300 + "/t",
        "mqtt://me:s3cret@[::1/t",
    ],
)  # fmt: skip
def test_what_is_no_broker_is_one_line_without_its_password(text, capsys):
    with pytest.raises(UsageError):
        address_of(text)
    assert main(["video", "a.mp4", "--mqtt", text]) == 2
    out, err = capsys.readouterr()
    assert len(err.splitlines()) == 1 and "s3cret" not in out + err


def test_each_source_has_a_level_of_its_own_in_topics():
    names = ["rtsp://10.0.0.7:554/live/1", "/srv/video/gate 1.mp4", "camera 0", "a/b", "a:b", "#+/", "+", "é" * 200]
    found = levels(names)
    assert found == ["10.0.0.7_554_live_1", "srv_video_gate_1.mp4", "camera_0", "a_b", "a_b_2", "source", "source_2",
                     "é" * 64]  # fmt: skip
    assert not any(set(level) & set("/+#\0 ") for level in found)


def test_while_the_broker_is_away_words_are_kept_longest_and_those_lost_are_counted():
    said = []
    sink = Mqtt(NOBODY, ["a"], say=said.append, most=10, patience=0.0)
    for track in range(8):
        sink.write(ended(track))
        sink.write(Statistics(0))  # of no use later: they make room
    assert [message.lasting for message in sink._waiting].count(True) == 8 and len(said) == 1
    sink.write(Gap(0, 0.0, 1.0, "frozen"))
    for track in range(8, 14):
        sink.write(ended(track))
        sink.write(WordChanged(0, track, 0.0, "B", "A", 1.0, QUAD))
    kept = [message.payload for message in sink._waiting]
    assert sink.lost == 5 and ['"gap"' in line for line in kept] == [False] * 3 + [True] + [False] * 6
    assert [f'"track": {track},' in line for track, line in zip([5, 6, 7, 0, *range(8, 14)], kept)].count(False) == 1
    assert len(said) == 2 and said[1].endswith("10 events wait for the broker; from now on the oldest are lost")
    with pytest.raises(UsageError, match="15 words and gaps and 14 other events were not delivered"):
        sink.close()


class Silent:
    """Takes connections as a broker does, and acknowledges no word until it is told to. published: the numbers and
    tracks of what came on the present one."""

    def __init__(self):
        self.server = socket.create_server(("127.0.0.1", 0))
        self.port, self.connections, self.published = self.server.getsockname()[1], 0, []
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self):
        while True:
            self.connection, _ = self.server.accept()
            self.published, stream = [], self.connection.makefile("rb")
            self.connections += 1
            while head := stream.read(1):
                length, shift = 0, 0
                while (byte := stream.read(1)[0]) & 128:
                    length, shift = length | (byte & 127) << shift, shift + 7
                body = stream.read(length | byte << shift)
                if head[0] >> 4 == 1:
                    self.connection.sendall(b"\x20\x02\x00\x00")
                elif head[0] >> 4 == 3 and head[0] & 6:
                    at = 2 + int.from_bytes(body[:2], "big")
                    if b"/word_ended" in body[:at]:
                        self.published.append((body[at : at + 2], json.loads(body[at + 2 :])["track"]))
                    else:
                        self.connection.sendall(b"\x40\x02" + body[at : at + 2])

    def acknowledge(self):
        for number, _ in list(self.published):
            self.connection.sendall(b"\x40\x02" + number)


def until(true):
    end = time.monotonic() + 20
    while not true():
        assert time.monotonic() < end, "never came true"
        time.sleep(0.005)


def test_what_a_new_connection_sends_again_is_acknowledged_before_anything_new_is_sent():
    broker = Silent()
    sink = Mqtt(f"mqtt://127.0.0.1:{broker.port}", ["a"], say=lambda _: None, patience=0.0)
    for track in range(3):
        sink.write(ended(track))
    until(lambda: len(broker.published) == 3)
    broker.connection.shutdown(socket.SHUT_RDWR)
    until(lambda: not sink._connected)  # else some of these are sent on the old one, and come again with the first
    for track in range(3, 8):
        sink.write(ended(track))
    until(lambda: broker.connections == 2 and len(broker.published) == 3)
    time.sleep(0.2)  # nothing comes
    assert [track for _, track in broker.published] == [0, 1, 2]
    broker.acknowledge()
    until(lambda: len(broker.published) == 8)
    assert [track for _, track in broker.published] == list(range(8))
    with pytest.raises(UsageError, match="5 words"):
        sink.close()


def test_no_more_are_under_way_than_paho_sends_at_once():
    broker = Silent()
    sink = Mqtt(f"mqtt://127.0.0.1:{broker.port}", ["a"], say=lambda _: None, patience=0.0)
    for track in range(100):
        sink.write(ended(track))
    until(lambda: len(broker.published) == IN_FLIGHT)
    time.sleep(0.2)
    assert len(broker.published) == IN_FLIGHT == len(sink._flight) < sink._client.max_inflight_messages
    with pytest.raises(UsageError, match="100 words"):
        sink.close()


def test_closing_ends_the_threads_and_whoever_writes_later_does_no_harm():
    sink = Mqtt(NOBODY, ["a"], say=lambda _: None, patience=0.0)
    ours = [thread for thread in threading.enumerate() if thread.name.startswith(("paho", "write mqtt"))]
    assert len(ours) >= 2
    sink.close()
    sink.write(ended(1))
    for thread in ours:
        thread.join(20)
    assert not sink._waiting and not any(thread.is_alive() for thread in ours)


def test_without_its_library_it_says_what_to_install(monkeypatch):
    for name in ("paho.mqtt.client", "paho.mqtt.enums"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BackendError, match=r"pip install 'clip4str\[mqtt\]'"):
        Mqtt(NOBODY)
