"""clip4str serve ray as a user types it: on this machine alone, to its end by Ctrl-C; wrong input."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

pytest.importorskip("ray")
pytest.importorskip("fastapi")

from batch_inputs import CROPS
from ray_rig import SECONDS, Client, cluster, command, environment, free_port, serve

from clip4str.core.errors import BackendError
from clip4str.core.packaged import PACKAGED
from clip4str.serving.ray.server_settings import VARIABLE

TOKEN = "a-token-of-some-length"


def test_a_server_of_this_machine_alone_until_ctrl_c():
    port, metrics = free_port(), free_port()
    variables = {VARIABLE: TOKEN, "RAY_metrics_report_interval_ms": "500"}
    args = command(PACKAGED, "--port", port, "--metrics-port", metrics, "--no-photos")
    process = subprocess.Popen(args, env=environment(**variables), stderr=subprocess.PIPE, text=True)
    try:
        until = time.monotonic() + SECONDS
        while Client(port).ask("GET", "/health")[0] != 200 and time.monotonic() < until:
            assert process.poll() is None, process.stderr.read()
            time.sleep(0.2)
        assert TOKEN not in " ".join(args)
        status, answer = Client(port, TOKEN).read([CROPS[0].read_bytes()])
        assert status == 200 and answer["words"][0]["text"] == "HAPPENINGS"
        assert Client(port).read([CROPS[0].read_bytes()])[0] == 401
        shown = b""
        while b"ray_clip4str_images_total{" not in shown and time.monotonic() < until:
            time.sleep(0.5)
            shown = Client(metrics).ask("GET", "/metrics")[1]
        line = next(each for each in shown.decode().splitlines() if each.startswith("ray_clip4str_images_total{"))
        assert line.endswith(" 1.0") and f'bundle="{answer["bundle"]}"' in line
    finally:
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=SECONDS)[1]
    assert process.returncode == 130 and "Traceback" not in said
    assert Client(port).ask("GET", "/health")[0] == 0


class Deployed:
    """Serve with an application that is ready, and no proxy."""

    def start(self, **_):
        pass

    def run(self, *_, **__):
        pass

    def shutdown(self):
        pass

    def status(self):
        return SimpleNamespace(applications={"clip4str": SimpleNamespace(status="RUNNING", message="")})


@pytest.mark.parametrize("address", [None, "elsewhere:6379"])
def test_a_door_at_which_nothing_answers_is_said(monkeypatch, capsys, address):
    """So HAProxy leaves it that finds its own ports taken."""
    import ray
    from ray import serve

    from clip4str.serving.ray import ray_command

    for name in ("start", "run", "shutdown", "status"):
        monkeypatch.setattr(serve, name, getattr(Deployed(), name))
    monkeypatch.setattr(ray, "shutdown", lambda: None)
    monkeypatch.setattr(ray_command, "connect", lambda *_, **__: None)
    monkeypatch.setattr(ray_command, "_as_it_listens", lambda _: None)
    monkeypatch.setattr(ray_command, "DOOR", 0.3)
    monkeypatch.setenv(VARIABLE, TOKEN)
    port = free_port()
    args = [str(PACKAGED), "--port", str(port)] + (["--address", address] if address else [])
    if address is None:
        with pytest.raises(BackendError, match=f"does not answer at http://127.0.0.1:{port}"):
            ray_command.main(args)
    else:
        assert ray_command.main(args) == 0
        said = capsys.readouterr().err
        assert f"nothing answers at http://127.0.0.1:{port} from this machine" in said and "serves at" not in said


@pytest.mark.parametrize(
    "args, said",
    [
        (["/no/such"], "no such bundle"),
        ([PACKAGED, "--host", "0.0.0.0"], f"set {VARIABLE}"),
        ([PACKAGED, "--replicas", "8:1"], "--replicas is a number or MIN:MAX"),
        ([PACKAGED, "--cpus", "-1"], "--cpus"),
        ([PACKAGED, "--address", "127.0.0.1:1"], "Ray:"),
        ([PACKAGED, "--token-file", "/no/such"], "No such file"),
    ],
)
def test_wrong_input_is_one_line(args, said):
    done = serve(*args)
    lines = [line for line in done.stderr.splitlines() if line.startswith("clip4str")]
    assert done.returncode == 2 and said in lines[-1] and "Traceback" not in done.stderr


def test_a_change_of_network_without_the_token_is_refused_where_others_reach_the_server(tmp_path):
    """Serve keeps the address of the first time; that the second command has another default is no matter."""
    port, file = free_port(), tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    with cluster(2) as made:
        again = [PACKAGED, "--address", made.address, "--proxies", "head", "--no-photos"]
        first = serve(*again, "--host", "0.0.0.0", "--port", port, "--token-file", file)
        assert first.returncode == 0, first.stderr
        done = serve(*again)
        said = done.stderr.splitlines()[-1]
        assert done.returncode == 2 and "Traceback" not in done.stderr
        assert "what serves there listens at 0.0.0.0: others can reach the server" in said and VARIABLE in said
        assert Client(port).read([CROPS[0].read_bytes()])[0] == 401
        done = serve(*again, "--token-file", file)
        assert done.returncode == 0 and f"serves at http://0.0.0.0:{port}," in done.stderr, done.stderr
        assert Client(port, TOKEN).read([CROPS[0].read_bytes()])[0] == 200


CONFIGURED = """
import sys, time, ray, yaml
from ray import serve
from ray.serve.context import _get_global_client
from ray.serve.schema import ServeDeploySchema
ray.init(sys.argv[1], log_to_driver=False)
given = ServeDeploySchema.model_validate(yaml.safe_load(sys.argv[2]))
serve.start(proxy_location="HeadOnly", http_options=given.http_options.model_dump())
_get_global_client().deploy_apps(given)
while (status := serve.status().applications["clip4str"]).status not in ("RUNNING", "DEPLOY_FAILED"):
    time.sleep(0.5)
print(status.status, *(each.message for each in status.deployments.values()))
"""  # as `serve run` deploys a configuration file


@pytest.mark.parametrize("door", ["host: 0.0.0.0, ", ""], ids=["others", "default"])
def test_a_configuration_file_for_others_needs_a_token(door):
    """As the command does. Where a file names no host, Ray listens for everybody."""
    port = free_port()
    file = (
        f"http_options: {{{door}port: {port}}}\n"
        "applications: [{name: clip4str, import_path: 'clip4str.serving.ray.application:build', args: {photos: false}}]"
    )
    with cluster(2) as made:
        run = [sys.executable, "-c", CONFIGURED, made.address, file]
        done = subprocess.run(run, env=environment(), capture_output=True, text=True, timeout=2 * SECONDS)
        assert "DEPLOY_FAILED" in done.stdout, done.stdout + done.stderr
        assert "what serves here listens at 0.0.0.0: others can reach the server" in done.stdout
        assert VARIABLE in done.stdout and Client(port).read([CROPS[0].read_bytes()])[0] not in (200, 401)
