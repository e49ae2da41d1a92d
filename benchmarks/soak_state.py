"""What a process holds, and a gate that lets its threads come to rest so that it can be told."""

from __future__ import annotations

import ctypes
import gc
import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np


class Gate:
    """Work passes while it is open; who closes it waits until no work is under way."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside, self._shut = 0, False

    @contextmanager
    def passed(self) -> Iterator[None]:
        """One piece of work; waits while the gate is closed."""
        with self._changed:
            self._changed.wait_for(lambda: not self._shut)
            self._inside += 1
        try:
            yield
        finally:
            with self._changed:
                self._inside -= 1
                self._changed.notify_all()

    @contextmanager
    def closed(self) -> Iterator[None]:
        """No work is under way, and none begins."""
        with self._changed:
            self._shut = True
            self._changed.wait_for(lambda: self._inside == 0)
        try:
            yield
        finally:
            with self._changed:
                self._shut = False
                self._changed.notify_all()


class _MallInfo2(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_size_t)
        for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks",
                     "keepcost")
    ]  # fmt: skip


def _malloc() -> _MallInfo2 | None:
    try:
        mallinfo2 = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError):
        return None
    mallinfo2.restype = _MallInfo2
    return mallinfo2()


def allocated_mb() -> float | None:
    """MB that malloc has given out and not got back, in all arenas; None where the C library cannot tell (glibc 2.33
    and newer can)."""
    info = _malloc()
    return None if info is None else (info.uordblks + info.hblkhd) / 1e6


STATE = ("rss_mb", "allocated_mb", "kept_free_mb", "handles", "threads")


def process_state() -> dict[str, float | None]:
    """Of this process: memory that is resident, that is allocated, and that malloc keeps for later, in MB; open
    handles, threads. What Python would collect some time is collected first: it is no growth."""
    gc.collect()
    own = Path("/proc/self")
    resident = int((own / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    handles, threads = (len(list((own / name).iterdir())) for name in ("fd", "task"))
    info = _malloc()
    return {
        "rss_mb": round(resident / 1e6, 3),
        "allocated_mb": None if info is None else round((info.uordblks + info.hblkhd) / 1e6, 3),
        "kept_free_mb": None if info is None else round(info.fordblks / 1e6, 3),
        "handles": handles, "threads": threads,
    }  # fmt: skip


class Samples:
    """Numbers taken every so often, in a table that is made at the start: what a benchmark keeps must not look like
    growth of what it measures. None is kept as not a number."""

    def __init__(self, most: int, names: Sequence[str]) -> None:
        self.names, self.count = tuple(names), 0
        self._table = np.full((most, len(self.names)), np.nan)  # written to, so that it is resident from the start

    def add(self, sample: Mapping[str, float | None]) -> None:
        """Leaves out what comes after the most."""
        if self.count < len(self._table):
            row = [sample[name] for name in self.names]
            self._table[self.count] = [np.nan if value is None else value for value in row]
            self.count += 1

    def rows(self) -> list[dict[str, Any]]:
        return [
            {name: None if np.isnan(value) else float(value) for name, value in zip(self.names, row)}
            for row in self._table[: self.count]
        ]
