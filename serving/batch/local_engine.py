"""Chunks read on this machine, by threads that share one network: beside each other they read more than one with as
many threads inside, and hold the weights once (benchmarks/batch.py)."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from typing import Any

from .chunks import Chunk
from .results import ChunkReader

AHEAD = 2  # chunks a thread that are listed before they can be read


def run(
    chunks: Iterator[Chunk], reader: ChunkReader, workers: int, stopped: threading.Event
) -> Iterator[tuple[int, str, Any]]:
    """(number, key, table) of each chunk as it is done. stopped: the reader's, set when this ends early."""
    pool, pending = ThreadPoolExecutor(workers, "clip4str-batch"), {}
    try:
        for chunk in chunks:
            pending[pool.submit(reader.read, chunk)] = chunk
            if len(pending) >= AHEAD * workers:
                yield from _done(pending)
        while pending:
            yield from _done(pending)
    finally:
        stopped.set()
        pool.shutdown(cancel_futures=True)


def _done(pending: dict[Future[Any], Chunk]) -> Iterator[tuple[int, str, Any]]:
    for future in wait(pending, return_when=FIRST_COMPLETED).done:
        chunk = pending.pop(future)
        yield chunk.number, chunk.key, future.result()
