"""Images of all requests, read in batches. Of a request as a whole: what is done for each of its images by itself adds
up to more than all else that HTTP takes."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any

Read = Callable[[list[bytes]], Awaitable[Sequence[Any]]]


class Batcher:
    """read: at most `most` images. A batch is read once one of `workers` is free, and it is full or its first image has
    waited for `wait` seconds. A full one more is given to `read` before, so that no worker waits for this loop."""

    def __init__(self, read: Read, most: int, wait: float, workers: int) -> None:
        self._read, self._most, self._wait, self._workers = read, most, wait, workers
        self._waiting: deque[tuple[_Asked, int]] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._running = 0
        self._timer: asyncio.TimerHandle | None = None

    async def found(self, images: Sequence[bytes]) -> AsyncGenerator[Any, None]:
        """What `read` gives of each, in their order, as soon as it is there. Raises what `read` does."""
        asked = _Asked(images)
        self._waiting.extend((asked, index) for index in range(len(images)))
        self._start()
        try:
            for index in range(len(images)):
                while (found := asked.found[index]) is None:
                    if asked.error is not None:
                        raise asked.error
                    asked.more.clear()
                    await asked.more.wait()
                yield found
        finally:
            asked.gone = True

    def _start(self) -> None:
        """Batches that can be read now; looks again when the next may be."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        loop = asyncio.get_running_loop()
        while self._waiting and self._running < self._workers + (len(self._waiting) >= self._most):
            left = self._waiting[0][0].came + self._wait - time.monotonic()
            if len(self._waiting) < self._most and left > 0:
                self._timer = loop.call_later(left, self._start)
                return
            batch: list[tuple[_Asked, int]] = []
            while self._waiting and len(batch) < self._most:
                each = self._waiting.popleft()
                if not each[0].gone:
                    batch.append(each)
            if batch:
                self._running += 1
                task = loop.create_task(self._run(batch))
                self._tasks.add(task)
                task.add_done_callback(self._tasks.discard)

    async def _run(self, batch: list[tuple[_Asked, int]]) -> None:
        try:
            found = await self._read([asked.images[index] for asked, index in batch])
            for (asked, index), each in zip(batch, found, strict=True):
                asked.found[index] = each
        except Exception as error:
            for asked, _ in batch:
                asked.error = error
        finally:
            self._running -= 1
        self._start()  # before answers are written
        for asked, _ in batch:
            asked.more.set()


class _Asked:
    """A request's images, and what was found of them so far: None where nothing was yet."""

    def __init__(self, images: Sequence[bytes]) -> None:
        self.images, self.found, self.came = images, [None] * len(images), time.monotonic()
        self.error: Exception | None = None
        self.more, self.gone = asyncio.Event(), False
