"""Processor time of a server's processes, by what they are."""

from __future__ import annotations

import os
from collections import Counter
from pathlib import Path

_OURS = {  # that a request crosses: of the command line -> name
    "ray::ServeReplica": "replica", "ray::ProxyActor": "proxy", "ray::HAProxyManager": "proxy", "haproxy": "proxy",
}  # fmt: skip


def used() -> Counter[str]:
    """Seconds so far of this process's descendants: replica, proxy, and the rest of Ray."""
    found: dict[int, tuple[int, str, float]] = {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command = (folder / "cmdline").read_text(errors="replace")
            fields = (folder / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # it has ended
            continue
        name = next((name for part, name in _OURS.items() if part in command), "rest of Ray")
        found[int(folder.name)] = int(fields[1]), name, sum(map(int, fields[11:13])) / os.sysconf("SC_CLK_TCK")
    total: Counter[str] = Counter()
    for parent, name, seconds in found.values():
        while parent in found and parent != os.getpid():
            parent = found[parent][0]
        if parent == os.getpid():
            total[name] += seconds
    return total
