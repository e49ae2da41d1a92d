"""Processor time and memory of a server's processes."""

from __future__ import annotations

import os
from collections import defaultdict
from pathlib import Path

_OURS = {  # that a request crosses: of the command line -> name
    "ray::ServeReplica": "replica", "ray::ProxyActor": "proxy", "ray::HAProxyManager": "proxy", "haproxy": "proxy",
}  # fmt: skip


def used(rest: str = "rest of Ray") -> dict[str, float]:
    """Seconds so far of this process's descendants: replica, proxy, and the rest, by the name that it is given."""
    found: dict[int, tuple[int, str, float]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_text(errors="replace")
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        name = next((name for part, name in _OURS.items() if part in command), rest)
        ticks = int(fields[11]) + int(fields[12])
        found[int(folder.name)] = int(fields[1]), name, ticks / os.sysconf("SC_CLK_TCK")
    total: dict[str, float] = defaultdict(float)
    for parent, name, seconds in found.values():
        while parent in found and parent != os.getpid():
            parent = found[parent][0]
        if parent == os.getpid():
            total[name] += seconds
    return total


def resident_mb() -> float:
    """Of this process's descendants."""
    found: dict[int, tuple[int, int]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        found[int(folder.name)] = int(fields[1]), int(fields[21])
    pages = 0
    for parent, size in found.values():
        while parent in found and parent != os.getpid():
            parent = found[parent][0]
        pages += size if parent == os.getpid() else 0
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)
