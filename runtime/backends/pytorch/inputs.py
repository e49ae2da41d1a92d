"""Pixels from wherever they are: numpy arrays, tensors, and what other libraries keep on the GPU, without copying."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clip4str.core.errors import ImageError, first_line

from ..contract import checked

_DTYPES = (torch.float32, torch.float16)


def accept_pixels(pixels: Any, size: tuple[int, int], device: torch.device) -> Tensor:
    """Normalised pixels (N, 3, H, W), float32 or float16, as a tensor that shares their memory.

    pixels: numpy array, torch tensor, or anything with DLPack or `__cuda_array_interface__` (whose stream is waited
    for on the current one). They may lie on the CPU or on `device`, in any strides. size: (height, width).

    Raises ImageError for anything else, and on the CPU for what contract.checked refuses.
    """
    tensor = as_tensor("pixels", pixels, device)
    wanted = f"expected float32 or float16 (N, 3, {size[0]}, {size[1]})"
    if tensor.dim() != 4 or tuple(tensor.shape[1:]) != (3, *size) or tensor.dtype not in _DTYPES:
        raise ImageError(f"pixels are {str(tensor.dtype).removeprefix('torch.')} {tuple(tensor.shape)}, {wanted}")
    if tensor.layout != torch.strided:
        raise ImageError(f"pixels are {str(tensor.layout).removeprefix('torch.')}, expected a dense tensor")
    if tensor.device.type != "cpu" and tensor.device != device:
        raise ImageError(f"pixels are on {tensor.device}, the recogniser is on {device}; move them there or to the CPU")
    tensor = tensor.detach()
    if tensor.device.type == "cpu":
        checked(tensor.numpy())
    return tensor


def to_device(pixels: np.ndarray | Tensor, device: torch.device) -> Tensor:
    """Without a copy where they are there already."""
    return (from_numpy(pixels) if isinstance(pixels, np.ndarray) else pixels).to(device)


def from_numpy(array: np.ndarray) -> Tensor:
    """Shares the array's memory unless torch cannot: it wants positive strides and writable memory."""
    if not array.flags.writeable or any(stride < 0 for stride in array.strides):
        array = array.copy()
    return torch.from_numpy(array)


def as_tensor(name: str, value: Any, device: torch.device) -> Tensor:
    """A tensor that shares the memory of an array of any of these kinds. Raises ImageError, which calls it `name`."""
    if isinstance(value, Tensor):
        return value
    kind = type(value).__name__
    try:
        if isinstance(value, np.ndarray):
            return from_numpy(value)
        if hasattr(value, "__dlpack__"):
            return torch.from_dlpack(value)  # the producer makes the current stream wait for its own
        if hasattr(value, "__cuda_array_interface__"):
            _wait_for(value.__cuda_array_interface__.get("stream"), device)
            return torch.as_tensor(value, device=device)
    except (TypeError, ValueError, RuntimeError, BufferError, KeyError) as error:
        reason = first_line(error, 200)
        raise ImageError(f"{name}: a {kind} that cannot be read ({reason})") from None
    raise ImageError(f"{name}: a {kind}, expected a numpy array, a tensor, or DLPack or __cuda_array_interface__")


def _wait_for(stream: Any, device: torch.device) -> None:
    """The interface's stream key: None where nothing is pending, 1 the default stream, else a handle."""
    if stream is None or device.type != "cuda":
        return
    if not isinstance(stream, int) or isinstance(stream, bool) or stream < 1:
        raise ValueError(f"its stream is {stream!r}")
    with contextlib.ExitStack() as stack:
        stack.enter_context(torch.cuda.device(device))
        current = torch.cuda.current_stream()
        current.wait_stream(torch.cuda.default_stream() if stream == 1 else torch.cuda.ExternalStream(stream))
