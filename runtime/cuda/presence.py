"""Whether an NVIDIA GPU is here, told without the driver's help: a process that has called cuInit cannot be forked into
ones that use CUDA, which is too much for a question that nobody asked."""

from __future__ import annotations

import ctypes
import glob
import os

# Numbered cards, a Jetson's (newer and older Jetson Linux), and WSL's; there libcuda alone tells that it is NVIDIA's.
NODES = ("/dev/nvidia[0-9]*", "/dev/nvgpu", "/dev/nvhost-gpu", "/dev/dxg")


def has_driver() -> bool:
    """Can NVIDIA's driver be loaded? It is, and not called."""
    try:
        ctypes.CDLL("nvcuda.dll" if os.name == "nt" else "libcuda.so.1")
    except OSError:
        return False
    return True


def has_gpu() -> bool:
    """Is there its driver, and a device for it that this process may see?"""
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0").strip() in ("", "-1") or not has_driver():
        return False
    return os.name == "nt" or any(glob.glob(node) for node in NODES)  # noqa: PTH207  (absolute patterns)
