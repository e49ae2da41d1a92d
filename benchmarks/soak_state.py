"""What a process holds, and a gate that lets its threads come to rest so that it can be told."""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


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


def allocated_mb() -> float | None:
    """MB that malloc has given out and not got back, in all arenas; None where the C library cannot tell (glibc 2.33
    and newer can)."""
    try:
        mallinfo2 = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError):
        return None
    mallinfo2.restype = _MallInfo2
    info = mallinfo2()
    return (info.uordblks + info.hblkhd) / 1e6


def process_state() -> dict[str, float | None]:
    """Of this process: memory that is resident and that is allocated, in MB; open handles, threads."""
    own = Path("/proc/self")
    resident = int((own / "statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    handles, threads = (len(list((own / name).iterdir())) for name in ("fd", "task"))
    allocated = allocated_mb()
    return {
        "rss_mb": round(resident / 1e6, 3), "allocated_mb": None if allocated is None else round(allocated, 3),
        "handles": handles, "threads": threads,
    }  # fmt: skip
