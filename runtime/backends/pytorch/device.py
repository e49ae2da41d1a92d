"""Where the network runs and in which precision."""

from __future__ import annotations

import importlib.util

import torch

from clip4str.core.errors import BackendError, DeviceError, UsageError, first_line
from clip4str.kernels.shared.launch import LEAST_CAPABILITY, check_capability

DTYPES = {
    "float16": torch.float16, "fp16": torch.float16, "bfloat16": torch.bfloat16, "bf16": torch.bfloat16,
    "float32": torch.float32, "fp32": torch.float32,
}  # fmt: skip

PRECISION = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}  # as manifests call it


def gpu_is_usable() -> bool:
    """Is there a GPU that the kernels run on, and what compiles them?"""
    if not torch.cuda.is_available() or importlib.util.find_spec("triton") is None:
        return False
    return torch.cuda.get_device_capability() >= LEAST_CAPABILITY


def choose_device(name: str | torch.device | None) -> torch.device:
    """None: the current GPU if there is one, else the CPU.

    Raises BackendError if it is not there, cannot be used, or is too old for the kernels.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        raise BackendError(f"unknown device {name!r}; choose cpu, cuda or cuda:NUMBER") from None
    if device.type == "cpu":
        return torch.device("cpu")
    if device.type != "cuda":
        raise BackendError(f"the torch backend runs on cpu and cuda, not on {device.type}")
    if not torch.cuda.is_available():
        built = "no driver or no GPU was found" if torch.version.cuda else "this torch was built without CUDA"
        raise BackendError(f"device {name}: torch cannot use a GPU here ({built}); device='cpu' runs without")
    index = torch.cuda.current_device() if device.index is None else device.index
    if index >= torch.cuda.device_count():
        raise BackendError(f"device {name}: there are {torch.cuda.device_count()} GPUs, numbered from 0")
    if importlib.util.find_spec("triton") is None:
        raise BackendError("the kernels need triton on a GPU; pip install 'clip4str[gpu]', or device='cpu'")
    device = torch.device("cuda", index)
    try:
        check_capability(device)
    except DeviceError as error:
        raise BackendError(f"{str(error).partition(';')[0]}; device='cpu' runs without them") from None
    except RuntimeError as error:  # it is there, but in another process's exclusive use, or broken
        raise BackendError(f"device {name}: cannot be used ({first_line(error)})") from None
    return device


def choose_dtype(name: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    """None: float16 on a GPU, float32 on the CPU. Raises UsageError on another than DTYPES."""
    if name is None:
        return torch.float16 if device.type == "cuda" else torch.float32
    dtype = DTYPES.get(str(name).removeprefix("torch."))
    if dtype is None:
        raise UsageError(f"dtype is float16, bfloat16 or float32, not {name!r}")
    return dtype
