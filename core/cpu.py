"""What a processor computes 8 bits with."""

from __future__ import annotations

import platform
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
