"""Requests as a street makes them: each comes when it comes, whether or not the ones before it have been answered."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

_BACK_OFF = 0.05  # seconds after which a refused client of a closed loop comes again
Send = Callable[[bytes], Awaitable[str]]


class Refused(Exception):
    """Raised by a target whose server says that it has too much to do."""


@dataclass(frozen=True)
class Sample:
    """One request. late: seconds from the time it was due, not from the time it could be sent: a generator that cannot
    keep up must not make latencies look short. outcome: "read", "refused", "wrong" word, or "failed"."""

    due: float
    late: float
    outcome: str
    error: str = ""


async def poisson(send: Send, pictures: Sequence[tuple[bytes, str]], rate: float, seconds: float, seed: int = 0
                  ) -> list[Sample]:  # fmt: skip
    """Open loop: `rate` requests a second on average, for so many seconds, then until all are answered. pictures:
    encoded, with the word that is right."""
    chosen, loop, tasks = random.Random(seed), asyncio.get_running_loop(), []
    begin, due = loop.time(), 0.0
    while (due := due + chosen.expovariate(rate)) < seconds:
        await asyncio.sleep(max(0.0, begin + due - loop.time()))
        tasks.append(asyncio.create_task(_one(send, *chosen.choice(pictures), begin + due, begin)))
    return list(await asyncio.gather(*tasks))


async def in_flight(send: Send, pictures: Sequence[tuple[bytes, str]], count: int, seconds: float) -> list[Sample]:
    """Closed loop: always so many at once, the next as soon as one is answered. What a server can do at most."""
    loop = asyncio.get_running_loop()
    begin, samples = loop.time(), []

    async def ask(number: int) -> None:
        while loop.time() < begin + seconds:
            number = (number + 7) % len(pictures)
            samples.append(await _one(send, *pictures[number], loop.time(), begin))
            if samples[-1].outcome == "refused":
                await asyncio.sleep(_BACK_OFF)

    await asyncio.gather(*(ask(number) for number in range(count)))
    return samples


async def recovery(send: Send, pictures: Sequence[tuple[bytes, str]], limit: float, patience: float = 60.0
                   ) -> float | None:  # fmt: skip
    """Seconds from now until answers are right, and within `limit` seconds, five in a row; None where they are not so
    soon as `patience`."""
    loop, right, since = asyncio.get_running_loop(), 0, 0.0
    begin = loop.time()
    while right < 5:
        at = loop.time() - begin
        if at > patience:
            return None
        sample = await _one(send, *pictures[right % len(pictures)], begin + at, begin)
        right = right + 1 if sample.outcome == "read" and sample.late < limit else 0
        since = at if right == 1 else since
        if not right:
            await asyncio.sleep(_BACK_OFF)
    return since


async def _one(send: Send, picture: bytes, word: str, due: float, begin: float) -> Sample:
    loop, error = asyncio.get_running_loop(), ""
    try:
        outcome = "read" if await send(picture) == word else "wrong"
    except Refused:
        outcome = "refused"
    except Exception as problem:
        outcome, error = "failed", str(problem)
    return Sample(due - begin, loop.time() - due, outcome, error)


def reads_a_second(read: Callable[[Sequence[bytes]], object], pictures: Sequence[bytes], batch: int, seconds: float
                   ) -> float:  # fmt: skip
    """Of one process that reads batch after batch, and has nothing else to do."""
    read(pictures[:batch])
    begin, done = time.perf_counter(), 0
    while time.perf_counter() < begin + seconds:
        start = done % len(pictures)
        part = [*pictures, *pictures][start : start + batch]
        read(part)
        done += len(part)
    return done / (time.perf_counter() - begin)
