"""The machine that figures were measured on; they mean nothing without it."""

from __future__ import annotations

import os
import platform
import sys
from importlib import metadata
from pathlib import Path
from typing import Any

_PACKAGES = ("clip4str", "numpy", "pillow", "onnxruntime", "onnxruntime-gpu", "tensorrt", "torch")


def machine_info(threads: int | None = None) -> dict[str, Any]:
    """CPU, cores, threads used, GPU if any, load of the machine over the last minute, versions."""
    info: dict[str, Any] = {
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "threads": threads,
        "system": platform.system(),
    }
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available():
        info["gpu"] = torch.cuda.get_device_name()
    if hasattr(os, "getloadavg"):
        info["load_before"] = round(os.getloadavg()[0], 2)
    info["versions"] = {"python": platform.python_version(), **_versions()}
    return info


def describe(info: dict[str, Any]) -> str:
    """machine_info on two lines."""
    versions = ", ".join(f"{name} {version}" for name, version in info["versions"].items())
    threads = f", threads used: {info['threads']}" if info["threads"] else ""
    gpu = f", {info['gpu']}" if "gpu" in info else ""
    load = f", load {info['load_before']} before" if "load_before" in info else ""
    return f"{info['cpu']}, {info['cores']} cores{threads}{gpu}{load}\n{versions}"


def busy(info: dict[str, Any]) -> bool:
    """Was other work running when the figures were taken?"""
    return info.get("load_before", 0) > (info["cores"] or 1) / 2


def _cpu() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            if line.lower().startswith(("model name", "hardware")):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found
