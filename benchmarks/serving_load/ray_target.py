"""Ray Serve over loopback, by HTTP: a replica of one core for each instance."""

from __future__ import annotations

import asyncio
import re
import time
from urllib.request import urlopen

from .arrivals import Refused
from .load_target import Setup
from .ray_server import REPORTED, RayServer

_PICTURES = re.compile(r"^ray_clip4str_images_total\{.*\} (\S+)$", re.MULTILINE)
_BATCHES = re.compile(r"^ray_clip4str_batch_images_count\{.*\} (\S+)$", re.MULTILINE)


class RayTarget:
    """Raises BackendError where there is no Ray."""

    haproxy = False

    def __init__(self, setup: Setup) -> None:
        waiting = setup.max_batch + -(-setup.queue // setup.instances)
        self._server = RayServer(
            setup.bundle, setup.instances, self.haproxy, batch_size=setup.max_batch, wait_ms=setup.delay_ms,
            max_waiting=waiting, max_images=1,
        )  # fmt: skip
        self.what = self._server.what

    async def __aenter__(self) -> RayTarget:
        import aiohttp

        await asyncio.to_thread(self._server.__enter__)
        self.what = self._server.what
        headers = {**self._server.headers, "Content-Type": "image/jpeg"}
        self._session = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), headers=headers)
        return self

    async def __aexit__(self, *_: object) -> None:
        try:
            await self._session.close()
        finally:
            await asyncio.to_thread(self._server.__exit__)

    async def send(self, picture: bytes) -> str:
        async with self._session.post(f"http://127.0.0.1:{self._server.port}/read", data=picture) as answer:
            if answer.status == 429:
                raise Refused(await answer.text())
            answer.raise_for_status()
            return str((await answer.json())["words"][0]["text"])

    def counts(self) -> tuple[int, int]:
        """As Ray's metrics have it, some reports late."""
        found, before = (-1, -1), (-2, -2)
        while found != before:
            time.sleep(4 * REPORTED)
            with urlopen(f"http://127.0.0.1:{self._server.metrics}/metrics", timeout=30) as answer:
                text = answer.read().decode()
            before, found = found, (_sum(_PICTURES, text), _sum(_BATCHES, text))
        return found


class HAProxyTarget(RayTarget):
    haproxy = True


def _sum(values: re.Pattern[str], text: str) -> int:
    return int(sum(map(float, values.findall(text))))
