"""A Ray cluster of several machines on this one, and clients of what serves there."""

from __future__ import annotations

import http.client
import json
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from batch_inputs import CROPS, ROOT

SECONDS = 180  # that anything here may take: the machine may be busy


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


@contextmanager
def cluster(*cpus: int, metrics: int | None = None) -> Iterator[Any]:
    """A head, and a machine more for each further number. `nodes` are those. metrics: the head's port for them."""
    from ray.cluster_utils import Cluster

    made = Cluster()
    try:
        made.add_node(num_cpus=cpus[0], include_dashboard=False, metrics_export_port=metrics)
        made.nodes = [made.add_node(num_cpus=count) for count in cpus[1:]]
        made.wait_for_nodes()
        yield made
    finally:
        made.shutdown()


def environment(**more: str) -> dict[str, str]:
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    return {**os.environ, "PYTHONPATH": path, "RAY_USAGE_STATS_ENABLED": "0", **more}


def command(*args: object) -> list[str]:
    return [sys.executable, "-m", "clip4str", "serve", "ray", *map(str, args)]


def serve(*args: object, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*args), env=environment(**variables), capture_output=True, text=True, timeout=2 * SECONDS
    )


def form(crops: list[bytes]) -> tuple[bytes, dict[str, str]]:
    head = b'--x\r\nContent-Disposition: form-data; name="files"; filename="a.jpg"\r\n\r\n'
    body = b"".join(head + crop + b"\r\n" for crop in crops)
    return body + b"--x--\r\n", {"Content-Type": "multipart/form-data; boundary=x"}


class Client:
    """One connection. `post` gives (status, answer); 0 where the connection broke."""

    def __init__(self, port: int, token: str = "") -> None:
        self._port, self._connection = port, http.client.HTTPConnection("127.0.0.1", port, timeout=SECONDS)
        self._headers = {"Authorization": f"Bearer {token}"} if token else {}

    def ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, bytes]:
        try:
            self._connection.request(method, path, body, {**self._headers, **(headers or {})})
            answer = self._connection.getresponse()
            return answer.status, answer.read()
        except (OSError, http.client.HTTPException):
            self._connection.close()
            return 0, b""

    def read(self, crops: list[bytes]) -> tuple[int, Any]:
        status, answer = self.ask("POST", "/read", *form(crops))
        try:
            return status, json.loads(answer or b"null")
        except ValueError:
            return status, answer.decode()


class Load:
    """Clients that read crops without a pause, and ask again for what was not answered. found: (crop's number, status,
    answer) in the order of answers."""

    def __init__(self, port: int, clients: int, images: int = 1, token: str = "") -> None:
        self._token = token
        self.found: list[tuple[int, int, Any]] = []
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(port, k, images)) for k in range(clients)]

    def _run(self, port: int, first: int, images: int) -> None:
        client, number = Client(port, self._token), first
        while not self._stop.is_set():
            crops = [CROPS[(number + k) % len(CROPS)].read_bytes() for k in range(images)]
            status, answer = client.read(crops)
            self.found.append((number % len(CROPS), status, answer))
            if status == 200:
                number += 1
            else:  # asked again, as clients should
                time.sleep(0.05)

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def wait(self, answers: int) -> None:
        """Until so many more have come."""
        wanted, until = len(self.found) + answers, time.monotonic() + SECONDS
        while len(self.found) < wanted and time.monotonic() < until:
            time.sleep(0.02)
        assert len(self.found) >= wanted
