"""What a real Ray lets in, and what it refuses at its door, with its own proxy and with HAProxy."""

from __future__ import annotations

import json
import re
import select
import socket
import time

import pytest

pytest.importorskip("ray")
pytest.importorskip("fastapi")

from batch_inputs import CROPS
from ray_rig import SECONDS, Client, cluster, free_port, serve

from clip4str.core.packaged import PACKAGED
from clip4str.serving.ray import door
from clip4str.serving.ray.bearer import HAPROXY

TOKEN = "a-token-of-some-length"
CROP = CROPS[0].read_bytes()
HEAD = f"POST /read HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer {TOKEN}\r\nContent-Type: image/jpeg\r\n"


@pytest.fixture(scope="module", params=["0", "1"], ids=["Ray's proxy", "HAProxy"])
def machine(request, tmp_path_factory):
    """A cluster, its server's port and its metrics' port. Two pictures are let in at once, each of which is held for
    some seconds, as its batch waits for others."""
    file, port, metrics = tmp_path_factory.mktemp("token") / "token", free_port(), free_port()
    file.write_text(f"{TOKEN}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(HAPROXY, request.param)
        patch.setenv(door.CALLBACK, door.PATH)
        patch.setenv(door.VARIABLE, "2")
        patch.setenv("RAY_metrics_report_interval_ms", "500")
        with cluster(2, metrics=metrics) as made:
            where = ["--address", made.address, "--port", port, "--no-photos", "--token-file", file]
            done = serve(PACKAGED, *where, "--max-waiting", 2, "--max-images", 2, "--wait-ms", 4000)
            assert done.returncode == 0, done.stderr
            yield port, metrics


def sender(port, body):
    """A request of a crop, of which so much has been sent."""
    opened = socket.create_connection(("127.0.0.1", port), timeout=SECONDS)
    opened.sendall(f"{HEAD}Content-Length: {len(CROP)}\r\n\r\n".encode() + body)
    return opened


def answer(opened):
    """Status and JSON."""
    came = b""
    while not (found := re.match(rb"HTTP/1.1 (\d+).*?content-length: (\d+).*?\r\n\r\n(.*)", came, re.S | re.I)) or len(
        found[3]
    ) < int(found[2]):
        more = opened.recv(65536)
        assert more, came
        came += more
    return int(found[1]), json.loads(found[3])


def test_what_is_too_much_is_refused_before_its_body_comes(machine):
    port, metrics = machine
    client = Client(port, TOKEN)
    within = [sender(port, CROP) for _ in range(2)]
    statuses, status = [], 0
    for _ in range(3):  # the rest never comes; HAProxy may bring one before those two
        with sender(port, CROP[:10]) as late:
            if select.select([late], [], [], 1)[0]:
                status, said = answer(late)
                break
    assert status == 429 and said["bundle"] == "" and said["error"]["type"] == "overloaded"
    assert client.ask("GET", "/health")[0] == 200 and client.ask("GET", "/info")[0] == 200
    for each in within:
        with each:
            statuses.append(answer(each))
    assert [(status, said["words"][0]["text"]) for status, said in statuses] == [(200, "HAPPENINGS")] * 2
    with sender(port, CROP) as after:
        assert answer(after)[0] == 200
    until, shown = time.monotonic() + SECONDS, b""
    while b"ray_clip4str_refused_at_door_total{" not in shown and time.monotonic() < until:
        time.sleep(0.5)
        shown = Client(metrics).ask("GET", "/metrics")[1]
    line = next(each for each in shown.decode().splitlines() if each.startswith("ray_clip4str_refused_at_door_total{"))
    assert line.endswith(" 1.0")


def test_those_who_send_slowly_keep_nobody_out(machine):
    """A hundred whose pictures are on their way: others are read meanwhile; they, too, once theirs are there."""
    port, _ = machine
    slow = [sender(port, CROP[:10]) for _ in range(100)]
    client = Client(port, TOKEN)
    status, said = client.ask("POST", "/read", CROP, {"Content-Type": "image/jpeg"})
    assert (status, json.loads(said)["words"][0]["text"]) == (200, "HAPPENINGS")
    slow[0].sendall(CROP[10:])
    assert answer(slow[0])[0] == 200
    for each in slow:
        each.close()
    assert client.ask("POST", "/read", CROP, {"Content-Type": "image/jpeg"})[0] == 200, "those who went are not counted"
