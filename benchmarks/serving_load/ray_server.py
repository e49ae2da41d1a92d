"""Ray Serve as `clip4str serve ray` starts it, in a Ray of this machine, for benchmarks."""

from __future__ import annotations

import importlib.util
import os
import secrets
import socket
from pathlib import Path
from typing import Any

from clip4str.core.errors import BackendError

REPORTED = 0.5  # where they are read; Ray's own is 10


class RayServer:
    """A context manager. port: of the server, metrics: Prometheus'. headers: that a request needs. haproxy: before
    replicas, in the place of Ray's own proxy. reported: seconds between reports of metrics, which take time of the
    processor. settings: server_settings.Settings. Raises BackendError without Ray."""

    def __init__(
        self, bundle: Path, instances: int = 1, haproxy: bool = False, reported: float = REPORTED, **settings: Any
    ) -> None:
        for module in ("ray", "fastapi", "aiohttp"):
            if importlib.util.find_spec(module) is None:
                raise BackendError(f"{module} cannot be imported; make test-serving installs it into "
                                   "build/serving/site, for PYTHONPATH")  # fmt: skip
        self.port, self.metrics, self.what = _free_port(), _free_port(), "Ray Serve"
        self._bundle, self._instances, self._haproxy, self._settings = bundle, instances, haproxy, settings
        self.headers: dict[str, str] = {}
        self._reported = reported

    def __enter__(self) -> RayServer:
        from clip4str.serving.ray.bearer import HAPROXY  # no Ray yet: it reads its environment when it is imported
        from clip4str.serving.ray.ray_environment import prepare
        from clip4str.serving.ray.server_settings import VARIABLE, Settings

        token = secrets.token_hex(16)
        self.headers = {"Authorization": f"Bearer {token}"}
        os.environ.update({VARIABLE: token, HAPROXY: str(int(self._haproxy)),
                           "RAY_metrics_report_interval_ms": str(int(1000 * self._reported))})  # fmt: skip
        settings = Settings(bundle=str(self._bundle.resolve()), photos=False, need_token=True,
                            replicas=(self._instances, self._instances), **self._settings)  # fmt: skip
        prepare(settings.inside)
        import ray
        from ray import serve

        from clip4str.serving.ray.application import NAME, build
        from clip4str.serving.ray_cluster import connect

        os.environ.pop("RAY_ADDRESS", None)  # a Ray of its own, whose token nobody else has
        connect(None, num_cpus=self._instances + 1, include_dashboard=False, _metrics_export_port=self.metrics)
        try:
            serve.start(http_options={"host": "127.0.0.1", "port": self.port})
            serve.run(build(settings), name=NAME, route_prefix="/")
        except BaseException:
            self.__exit__()
            raise
        self.what = f"Ray Serve {ray.__version__}, HTTP{', HAProxy' if self._haproxy else ''}"
        return self

    def __exit__(self, *_: object) -> None:
        import ray
        from ray import serve

        try:
            serve.shutdown()
        finally:
            ray.shutdown()


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
