"""What a processor computes 8 bits with, and how much of it this process may use."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

VNNI = frozenset({"avx512_vnni", "avx_vnni"})


def cpu_flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """What the processor says it can do; nothing where it is not asked this way."""
    try:
        lines = cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return next((frozenset(line.partition(":")[2].split()) for line in lines if line.startswith("flags")), frozenset())


def weight_type(flags: frozenset[str], machine: str = "") -> str:
    """ "s8", or "u8" for x86 processors without VNNI: their products of pairs saturate at 16 bits with signed weights.

    With VNNI unsigned weights would be right too, and take twice as long.
    """
    x86 = (machine or platform.machine()).lower() in ("x86_64", "amd64", "i686", "x86")
    return "u8" if x86 and not flags & VNNI else "s8"


def available_threads(root: Path = Path("/")) -> int:
    """Cores this process may really use: its affinity (cpusets are in it), and the smallest CPU quota of its control
    group and those around it, in part a whole one. root: where /proc and /sys are."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    quotas = [quota for folder in _cpu_groups(root) if (quota := _quota(folder)) is not None]
    return max(1, min(cores, math.ceil(min(quotas, default=cores))))


def _cpu_groups(root: Path) -> Iterator[Path]:
    """Folders of the control groups that limit this process's time, each with those above it.

    /proc/self/cgroup has hierarchy:controllers:path lines, of version 2 "0::path". The path is as seen from the mount
    where there is a namespace, and from the machine's root where there is none: a container may find its group under
    either, so all of them are looked at that are there.
    """
    mounts = dict(_mounts(root))
    try:
        lines = (root / "proc/self/cgroup").read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        lines = []
    lines += ["0::/", "1:cpu:/"]
    for line in lines:
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        kind = "cgroup2" if number == "0" and not controllers else "cpu" if "cpu" in controllers.split(",") else ""
        for mount, seen_from in mounts.get(kind, ()):
            for inside in {path, os.path.relpath(path, seen_from) if path.startswith(seen_from) else "/"}:
                parts = [part for part in inside.split("/") if part not in ("", ".", "..")]
                yield from (mount.joinpath(*parts[:depth]) for depth in range(len(parts), -1, -1))


def _mounts(root: Path) -> Iterator[tuple[str, list[tuple[Path, str]]]]:
    """ "cgroup2" and "cpu" (of version 1): where they are mounted, and which of their folders."""
    found: dict[str, list[tuple[Path, str]]] = {
        "cgroup2": [(root / "sys/fs/cgroup", "/"), (root / "sys/fs/cgroup/unified", "/")],
        "cpu": [(root / "sys/fs/cgroup/cpu", "/"), (root / "sys/fs/cgroup/cpu,cpuacct", "/")],
    }
    with suppress(OSError):
        for line in (root / "proc/self/mountinfo").read_text(encoding="utf-8", errors="replace").splitlines():
            left, _, right = line.partition(" - ")
            fields, kind = left.split(), right.split()
            if len(fields) < 5 or len(kind) < 3:
                continue
            name = "cgroup2" if kind[0] == "cgroup2" else "cpu" if "cpu" in kind[2].split(",") else ""
            if kind[0].startswith("cgroup") and name:
                found[name].append((root / fields[4].lstrip("/"), fields[3]))
    yield from found.items()


def _quota(folder: Path) -> float | None:
    """CPUs' worth of time that a control group may use, None for as much as there is."""
    with suppress(OSError, ValueError):
        quota, period = (folder / "cpu.max").read_text().split()
        return None if quota == "max" else _share(quota, period)
    with suppress(OSError, ValueError):
        return _share((folder / "cpu.cfs_quota_us").read_text(), (folder / "cpu.cfs_period_us").read_text())
    return None


def _share(quota: str, period: str) -> float | None:
    return int(quota) / int(period) if int(quota) > 0 and int(period) > 0 else None
