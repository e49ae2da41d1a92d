"""Targets with known faults, to see that they are found."""

from __future__ import annotations

import ctypes
import mmap
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1] / "hostile"))

from doors import MB, Door
from targets import Target

from clip4str.core.errors import DataError


def _past_the_end_of_a_file() -> None:
    with tempfile.TemporaryFile() as file:
        file.write(bytes(mmap.PAGESIZE))
        file.flush()
        mapped = mmap.mmap(file.fileno(), mmap.PAGESIZE)
        os.ftruncate(file.fileno(), 0)
        mapped[0]


def _busy() -> None:
    while True:
        pass


def _two_lines() -> None:
    error = DataError("one")
    error.args = ("two\nlines",)
    raise error


def _too_much() -> None:
    """Tells nobody."""
    try:
        bytes(1 << 50)
    except MemoryError:
        raise DataError("damaged") from None


def _only_after(data: bytes) -> None:
    """A fault behind three refusals: to come there at all, those have to be told apart."""
    for at, byte in enumerate(b"far"):
        if data[at : at + 1] != bytes([byte]):
            raise DataError(f"byte {'abc'[at]} is wrong")
    raise KeyError("far")


FAULTS: dict[str, Callable[[], object]] = {
    "raises": lambda: {}["key"],
    "segfault": lambda: ctypes.string_at(0),
    "bus": _past_the_end_of_a_file,
    "spins": _busy,
    "sleeps": lambda: time.sleep(3600),
    "grows": lambda: b"x" * 64 * MB,
    "starves": _too_much,
    "exits": lambda: os._exit(3),
    "talks": _two_lines,
}


def _planted(name: str) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        if not data:
            raise DataError("empty")
        if data != b"good" and data != b"also good":
            FAULTS[name]()

    return run


def _target(name: str, run: Callable[[bytes], object]) -> Target:
    return Target(name, run, lambda: [b"good", b"also good"], None, Door(print, lambda: None, 32 * MB, 0.05))


TARGETS = {name: _target(name, _planted(name)) for name in FAULTS} | {"far": _target("far", _only_after)}
