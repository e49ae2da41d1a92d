"""Which implementation of an operator runs, and on what."""

from __future__ import annotations

import contextlib
import functools
import importlib.util
import os

import torch

from clip4str.core.errors import DeviceError, UsageError

from .tiles import most_multiprocessors

LEAST_CAPABILITY = (8, 0)  # tensor cores with bfloat16 and asynchronous copies: Ampere
_compiled_for: tuple[int, int] | None = None


def use_kernel(device: torch.device, implementation: str) -> bool:
    """Should the Triton kernel run (or the reference)?

    implementation: "auto" (the kernel on a GPU, the reference elsewhere), "triton" or "reference".
    Raises UsageError on another name, DeviceError where a kernel is wanted but cannot run.
    """
    if implementation not in ("auto", "triton", "reference"):
        raise UsageError(f"implementation is 'auto', 'triton' or 'reference', not {implementation!r}")
    if device.type == "meta" and _compiled_for is not None:
        return implementation != "reference"
    if implementation == "reference" or (implementation == "auto" and device.type != "cuda"):
        return False
    if device.type == "cuda":
        check_capability(device)
        if not _has_triton():
            raise DeviceError("kernels need triton: pip install 'clip4str[gpu]'; implementation='reference' does not")
    elif device.type != "cpu" or not interpreted():
        raise DeviceError(
            f"Triton kernels run on CUDA tensors, these are on {device}; "
            "implementation='reference' computes the same there (TRITON_INTERPRET=1 runs kernels on a CPU, for tests)"
        )
    return True


def compiles_for(capability: tuple[int, int]) -> None:
    """From now on launches on the meta device are launches on such a GPU, in this whole process: see ahead.py, which
    has processes for it."""
    global _compiled_for
    _compiled_for = capability


def on_gpu(device: torch.device) -> bool:
    """Is it a GPU, or does it stand for one that kernels are compiled for ahead?"""
    return device.type == "cuda" or (device.type == "meta" and _compiled_for is not None)


def capability_of(device: torch.device) -> tuple[int, int]:
    """The compute capability to choose tiles for. Raises DeviceError for a GPU that is too old for the kernels."""
    if device.type == "cuda":
        return check_capability(device)
    return _compiled_for or (9, 0)


def multiprocessors(device: torch.device) -> int:
    """How many a GPU has; of the largest of its kind where the device only stands for one."""
    if device.type == "cuda":
        return int(torch.cuda.get_device_properties(device).multi_processor_count)
    return most_multiprocessors(capability_of(device))


def interpreted() -> bool:
    """Is Triton's interpreter on? It must have been before the first kernel was imported."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y")  # as Triton reads it


def on_device(device: torch.device) -> contextlib.AbstractContextManager[None]:
    """Launch inside it: Triton launches on the current GPU, which need not be the tensors'."""
    return torch.cuda.device(device) if device.type == "cuda" else contextlib.nullcontext()


@functools.cache
def _has_triton() -> bool:
    return importlib.util.find_spec("triton") is not None


@functools.cache
def check_capability(device: torch.device) -> tuple[int, int]:
    """The GPU's compute capability. Raises DeviceError if it is too old for the kernels."""
    capability = torch.cuda.get_device_capability(device)
    if capability < LEAST_CAPABILITY:
        raise DeviceError(
            f"{torch.cuda.get_device_name(device)} has compute capability {capability[0]}.{capability[1]}, the kernels "
            f"need {LEAST_CAPABILITY[0]}.{LEAST_CAPABILITY[1]} or newer; implementation='reference' runs without them"
        )
    return capability
