"""NVIDIA's Triton Inference Server on this machine, without a container: out of the wheel that `make test-serving`
unpacks, or the one on the PATH."""

from __future__ import annotations

import http.client
import json
import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from clip4str.core.errors import BackendError

ROOT = Path(__file__).resolve().parents[2]
UNPACKED = ROOT / "build" / "serving" / "triton"
OLDER = UNPACKED.with_name("triton-python")  # numpy 1, which this server's Python backend was built for
READY = 300.0  # seconds until its models are loaded, at most


def server_is_there() -> bool:
    return _unpacked().is_file() or shutil.which("tritonserver") is not None


def _unpacked() -> Path:
    return UNPACKED / "pytriton" / "tritonserver" / "bin" / "tritonserver"


class TritonServer:
    """Running while the block does.

    folder: for its log, and its backends where they come out of the wheel. backends: further ones by name, folders to
    put beside them. strict: False where models may be broken on purpose. Raises BackendError where it does not start,
    or is not ready in time.
    """

    def __init__(
        self, repository: Path, folder: Path, *, options: Sequence[str] = (), strict: bool = True,
        backends: Mapping[str, Path] | None = None, environment: Mapping[str, str] | None = None,
    ) -> None:  # fmt: skip
        self.repository, self.folder, self.strict = repository, folder, strict
        self.options, self.backends, self.environment = options, backends or {}, environment or {}
        self.http, self.grpc, self.metrics = free_ports(3)
        self.log = folder / "tritonserver.log"

    def __enter__(self) -> TritonServer:
        program, environment, command = _unpacked(), {**os.environ, **self.environment}, ["tritonserver"]
        if program.is_file():
            command = [str(program), "--backend-directory", str(self._backends(program.parents[1]))]
            libraries = str(UNPACKED / "nvidia_pytriton.libs"), sysconfig.get_config_var("LIBDIR")  # our libpython
            environment["LD_LIBRARY_PATH"] = os.pathsep.join(libraries)
        command += [
            "--model-repository", str(self.repository), "--http-address", "127.0.0.1", "--http-port", str(self.http),
            "--grpc-address", "127.0.0.1", "--grpc-port", str(self.grpc), "--metrics-address", "127.0.0.1",
            "--metrics-port", str(self.metrics), "--disable-auto-complete-config", *self.options,
        ]  # fmt: skip
        if not self.strict:
            command += ["--exit-on-error=false"]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(command, env=environment, cwd=self._packages(), stdout=log, stderr=log)
        try:
            self._wait()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        try:
            self.process.wait(40)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()

    def get(self, path: str, method: str = "GET", port: int = 0) -> tuple[int, str]:
        """Status and body of a request over HTTP."""
        connection = http.client.HTTPConnection("127.0.0.1", port or self.http, timeout=READY)
        try:
            connection.request(method, path, body="{}" if method == "POST" else None)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def statistics(self, model: str) -> list[dict[str, Any]]:
        """Of each version of a model, as the server counts."""
        return json.loads(self.get(f"/v2/models/{model}/stats")[1])["model_stats"]

    def _backends(self, server: Path) -> Path:
        """The wheel has the Python backend's library and its stub, for each version of Python, in two places."""
        folder, version = self.folder / "backends", f"{sys.version_info.major}.{sys.version_info.minor}"
        shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(server / "backends" / "python", folder / "python")
        shutil.copy(server / "python_backend_stubs" / version / "triton_python_backend_stub", folder / "python")
        for name, source in self.backends.items():
            shutil.copytree(source, folder / name)
        return folder

    def _packages(self) -> Path:
        """Where its Python looks for packages: in its working folder, and not where PYTHONPATH says. Ours, by links."""
        folder = self.folder / "packages"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        ours = Path(sysconfig.get_paths()["purelib"])
        for path in (*ours.iterdir(), ROOT / "clip4str", *OLDER.glob("*")):
            (folder / path.name).unlink(missing_ok=True)
            (folder / path.name).symlink_to(path)
        return folder

    def _wait(self) -> None:
        end = time.monotonic() + READY
        while time.monotonic() < end:
            if self.process.poll() is not None:
                raise BackendError(f"tritonserver ended with {self.process.returncode}: {self.log}")
            try:
                if self.get("/v2/health/live" if not self.strict else "/v2/health/ready")[0] == 200:
                    return
            except OSError:
                pass
            time.sleep(0.1)
        raise BackendError(f"tritonserver is not ready after {READY:g} s: {self.log}")


def free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports
