"""clip4str serve ray in a real Ray cluster: words, overload, a change of network, a machine that dies under load."""

from __future__ import annotations

import json
import re
import shutil
import time
from collections import Counter

import pytest

pytest.importorskip("ray")
pytest.importorskip("fastapi")

from batch_inputs import CROPS, words_of
from ray_rig import SECONDS, Client, Load, cluster, form, free_port, serve

from clip4str.core.packaged import PACKAGED
from clip4str.runtime import Recognizer
from clip4str.runtime.bundle import Bundle
from clip4str.serving.ray.bearer import HAPROXY
from clip4str.serving.versions import bundle_version

TOKEN = "a-token-of-some-length"


@pytest.fixture(scope="module")
def wanted():
    with Recognizer.load(PACKAGED, threads=1) as recognizer:
        return list(words_of(recognizer, CROPS).values())


@pytest.fixture(scope="module", params=["0", "1"], ids=["Ray's proxy", "HAProxy"])
def machines(request, tmp_path_factory):
    """Two, of which the second can die; and the port that the first listens at."""
    file = tmp_path_factory.mktemp("token") / "token"
    file.write_text(f"{TOKEN}\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(HAPROXY, request.param)
        with cluster(3, 1) as made:
            made.token_file = file
            yield made, free_port()


def deployed(machines, bundle, *args):
    made, port = machines
    where = ["--address", made.address, "--port", port, "--proxies", "head", "--no-photos"]
    done = serve(bundle, *where, "--token-file", made.token_file, *args)
    assert done.returncode == 0, done.stderr
    assert f"serves at http://127.0.0.1:{port}" in done.stderr
    return port


def other_bundle(folder):
    """The packaged network under another name: another version."""
    shutil.copytree(PACKAGED, folder)
    manifest = folder / "manifest.json"
    manifest.write_text(json.dumps({**json.loads(manifest.read_text()), "name": "other"}))
    return folder


def version(bundle):
    return bundle_version(Bundle.open(bundle, verify=False).manifest)


def test_words_are_the_recognisers_own(machines, wanted):
    client = Client(deployed(machines, PACKAGED), TOKEN)
    status, answer = client.read([crop.read_bytes() for crop in CROPS])
    assert status == 200 and answer["bundle"] == version(PACKAGED)
    assert [(word["text"], word["confidence"]) for word in answer["words"]] == wanted
    body, headers = form([crop.read_bytes() for crop in CROPS])
    status, lines = client.ask("POST", "/read", body, {**headers, "Accept": "application/x-ndjson"})
    assert [json.loads(line)["text"] for line in lines.splitlines()] == [text for text, _ in wanted]


def test_three_times_what_it_can_do_is_refused_and_forgotten(machines, wanted):
    """16 images may wait; 12 clients bring 4 each as fast as they can."""
    port = deployed(machines, PACKAGED, "--max-waiting", 16, "--max-images", 8)
    Client(port, TOKEN).read([CROPS[0].read_bytes()])
    with Load(port, clients=12, images=4, token=TOKEN) as load:
        load.wait(150)
        before = memory()
        load.wait(400)
        after = memory()
    statuses = Counter(status for _, status, _ in load.found)
    assert set(statuses) == {200, 429} and min(statuses.values()) > 20, statuses
    refused = [answer for _, status, answer in load.found if status == 429]
    assert {answer["error"]["type"] for answer in refused} == {"overloaded"}
    for number, status, answer in load.found:
        if status == 200:
            assert [word["text"] for word in answer["words"]] == [wanted[(number + k) % 32][0] for k in range(4)]
    assert after < before + 100e6, f"{before / 1e6:.0f} MB before, {after / 1e6:.0f} after"
    assert Client(port, TOKEN).read([CROPS[0].read_bytes()])[0] == 200


def memory():
    """Bytes of the replicas and proxies."""
    from pathlib import Path

    total = 0
    for status in Path("/proc").glob("[0-9]*/status"):
        try:
            command = (status.parent / "cmdline").read_text()
            if any(name in command for name in ("ray::Serve", "ray::ProxyActor", "ray::HAProxy", "haproxy")):
                resident = [line for line in status.read_text().splitlines() if line.startswith("VmRSS")]
                total += sum(int(line.split()[1]) for line in resident)
        except OSError:
            continue
    assert total
    return total * 1024


def test_another_network_comes_under_load_and_nobody_notices(machines, wanted, tmp_path):
    new = other_bundle(tmp_path / "other")
    port = deployed(machines, PACKAGED)
    with Load(port, clients=4, token=TOKEN) as load:
        load.wait(20)
        deployed(machines, new)
        until = time.monotonic() + SECONDS
        while load.found[-1][2]["bundle"] != version(new) and time.monotonic() < until:
            load.wait(1)
        load.wait(40)
    assert Counter(status for _, status, _ in load.found) == {200: len(load.found)}
    assert all(answer["words"][0]["text"] == wanted[number][0] for number, _, answer in load.found)
    order = [answer["bundle"] for _, _, answer in load.found]
    assert order[0] == version(PACKAGED) and set(order[-20:]) == {version(new)} and len(set(order)) == 2


def test_a_bundle_that_is_not_what_it_should_be_leaves_the_old_one_serving(machines, tmp_path):
    port = deployed(machines, PACKAGED)
    bad = other_bundle(tmp_path / "bad")
    (bad / "cross.onnx").write_bytes(b"x" * (bad / "cross.onnx").stat().st_size)
    where = ["--address", machines[0].address, "--port", port, "--proxies", "head", "--no-photos"]
    done = serve(bad, *where, "--token-file", machines[0].token_file)
    assert done.returncode == 2 and "Traceback" not in done.stderr
    assert Client(port, TOKEN).read([CROPS[0].read_bytes()])[1]["bundle"] == version(PACKAGED)


def test_a_token_is_needed(machines):
    port = deployed(machines, PACKAGED)
    for token in ("", TOKEN[:-1]):
        assert Client(port, token).read([CROPS[0].read_bytes()])[0] == 401
    assert Client(port, TOKEN).read([CROPS[0].read_bytes()])[0] == 200


def test_a_machine_dies_under_load_and_everything_is_answered(machines, wanted):
    """What a dead machine had taken is answered with an error, and asked again; the server goes on."""
    made, _ = machines
    port = deployed(machines, PACKAGED, "--replicas", 4, "--surge", 0)  # more than the first has room for
    with Load(port, clients=4, token=TOKEN) as load:
        load.wait(40)
        made.remove_node(made.nodes.pop(), allow_graceful=False)
        load.wait(150)
    statuses = Counter(status for _, status, _ in load.found)
    assert set(statuses) <= {200, 500, 503, 0} and statuses[200] > 150, statuses  # 0: HAProxy breaks the connection
    assert sum(statuses.values()) - statuses[200] <= 8, statuses  # what was on its way there
    assert not any(re.search(r"Traceback|\.py\b|/tmp/|/home/", str(a)) for _, status, a in load.found if status != 200)
    assert all(a["words"][0]["text"] == wanted[n][0] for n, status, a in load.found if status == 200)
