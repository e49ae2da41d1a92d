"""Ray Serve over loopback, by HTTP: what `clip4str serve ray` starts, a replica of one core for each instance."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import socket
import time
from urllib.request import urlopen

from clip4str.core.errors import BackendError

from .arrivals import Refused
from .load_target import Setup

_REPORTED = 0.5  # seconds between reports of Ray's metrics, by which batches are counted
_PICTURES = re.compile(r"^ray_clip4str_images_total\{.*\} (\S+)$", re.MULTILINE)
_BATCHES = re.compile(r"^ray_clip4str_batch_images_count\{.*\} (\S+)$", re.MULTILINE)


class RayTarget:
    """Raises BackendError where there is no Ray."""

    def __init__(self, setup: Setup) -> None:
        for module in ("ray", "fastapi", "aiohttp"):
            if importlib.util.find_spec(module) is None:
                raise BackendError(f"{module} cannot be imported; make test-serving installs it into "
                                   "build/serving/site, for PYTHONPATH")  # fmt: skip
        self.setup, self.what = setup, "Ray Serve"
        self._metrics, self._port = _free_port(), _free_port()

    async def __aenter__(self) -> RayTarget:
        import aiohttp

        await asyncio.to_thread(self._start)
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))
        return self

    def _start(self) -> None:
        import ray
        from ray import serve

        from clip4str.serving.ray.application import NAME, build
        from clip4str.serving.ray.server_settings import Settings

        s = self.setup
        os.environ["RAY_metrics_report_interval_ms"] = str(int(1000 * _REPORTED))  # noqa: SIM112  (Ray has it so)
        ray.init(num_cpus=s.instances + 1, include_dashboard=False, log_to_driver=False, logging_level="ERROR",
                 _metrics_export_port=self._metrics)  # fmt: skip
        waiting = s.max_batch + -(-s.queue // s.instances)
        settings = Settings(
            bundle=str(s.bundle.resolve()), batch_size=s.max_batch, wait_ms=s.delay_ms, photos=False,
            replicas=(s.instances, s.instances), max_waiting=waiting, max_images=1,
        )  # fmt: skip
        serve.start(http_options={"host": "127.0.0.1", "port": self._port})
        serve.run(build(settings), name=NAME, route_prefix="/")
        self.what = f"Ray Serve {ray.__version__}, HTTP"

    async def __aexit__(self, *_: object) -> None:
        import ray
        from ray import serve

        await self._session.close()
        await asyncio.to_thread(serve.shutdown)
        await asyncio.to_thread(ray.shutdown)

    async def send(self, picture: bytes) -> str:
        headers = {"Content-Type": "image/jpeg"}
        async with self._session.post(f"http://127.0.0.1:{self._port}/read", data=picture, headers=headers) as answer:
            if answer.status == 429:
                raise Refused(await answer.text())
            answer.raise_for_status()
            return str((await answer.json())["words"][0]["text"])

    def counts(self) -> tuple[int, int]:
        """As Ray's metrics have it, some reports late."""
        found, before = (-1, -1), (-2, -2)
        while found != before:
            time.sleep(4 * _REPORTED)
            with urlopen(f"http://127.0.0.1:{self._metrics}/metrics", timeout=30) as answer:
                text = answer.read().decode()
            before, found = found, (_sum(_PICTURES, text), _sum(_BATCHES, text))
        return found


def _sum(values: re.Pattern[str], text: str) -> int:
    return int(sum(map(float, values.findall(text))))


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])
