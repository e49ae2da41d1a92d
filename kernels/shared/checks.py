"""Checks of operators' arguments. Errors are worded alike: what was expected, what was given."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from clip4str.core.errors import DeviceError, DtypeError, LayoutError, ShapeError, UsageError

MOST_FEATURES = 65536  # of a row
FLOATS = (torch.float16, torch.bfloat16, torch.float32)


def check_shape(name: str, tensor: Tensor, shape: Sequence[int | str], sizes: dict[str, int]) -> None:
    """shape: numbers, or letters that stand for the same number wherever they occur.

    sizes: the letters known so far; new ones are added. Raises ShapeError, UsageError if it is no tensor.
    """
    _check_tensor(name, tensor)
    known = dict(sizes)
    if len(shape) == tensor.dim():
        for s, n in zip(shape, tensor.shape):
            if isinstance(s, str):
                known.setdefault(s, n)
        if all(n == (known[s] if isinstance(s, str) else s) for s, n in zip(shape, tensor.shape)):
            sizes.update(known)
            return
    wanted = [sizes.get(s, s) if isinstance(s, str) else s for s in shape]
    meant = "" if list(shape) == wanted else f" = ({', '.join(map(str, wanted))})"
    letters = ", ".join(map(str, shape))
    raise ShapeError(f"{name}: expected shape ({letters}){meant}, got {tuple(tensor.shape)}")


def check_dtype(name: str, tensor: Tensor, dtypes: torch.dtype | Sequence[torch.dtype]) -> None:
    """Raises DtypeError, UsageError if it is no tensor."""
    _check_tensor(name, tensor)
    allowed = [dtypes] if isinstance(dtypes, torch.dtype) else list(dtypes)
    if tensor.dtype not in allowed:
        wanted = " or ".join(str(d).removeprefix("torch.") for d in allowed)
        raise DtypeError(f"{name}: expected {wanted}, got {str(tensor.dtype).removeprefix('torch.')}")


def check_contiguous(name: str, tensor: Tensor, dims: int | None = None) -> None:
    """dims: how many of the last dimensions must lie densely in memory, None for all. Raises LayoutError."""
    if tensor.layout != torch.strided:
        layout = str(tensor.layout).removeprefix("torch.")
        raise LayoutError(f"{name}: expected a dense tensor, got layout {layout}; call .to_dense()")
    first = 0 if dims is None else max(0, tensor.dim() - dims)
    expected = 1
    for size, stride in zip(reversed(tensor.shape[first:]), reversed(tensor.stride()[first:])):
        if size != 1 and stride != expected and tensor.numel():
            part = "contiguous" if dims is None else f"contiguous in its last {dims} dimension(s)"
            raise LayoutError(f"{name}: expected {part}, got strides {tensor.stride()}; call .contiguous()")
        expected *= size


def _check_tensor(name: str, value: object) -> None:
    if not isinstance(value, Tensor):
        raise UsageError(f"{name}: expected a tensor, got {type(value).__name__}")


def check_range(name: str, value: int, least: int, most: int) -> None:
    """Raises ShapeError."""
    if not least <= value <= most:
        raise ShapeError(f"{name}: supported are {least} to {most}, got {value}")


def check_same_device(tensors: Mapping[str, Tensor | None]) -> torch.device:
    """The device of all tensors; not all may be None. Raises DeviceError naming the first that is elsewhere."""
    there = {name: t.device for name, t in tensors.items() if t is not None}
    first, device = next(iter(there.items()))
    for name, other in there.items():
        if other != device:
            raise DeviceError(f"{name}: expected on {device} like {first}, got {other}")
    return device


def begin_alike(a: Tensor, b: Tensor) -> bool:
    """Do both begin at the same address? Empty ones, and those on the meta device, have none."""
    return a.numel() > 0 and a.data_ptr() == b.data_ptr() != 0


def begin_aligned(x: Tensor, size: int = 16) -> bool:
    """Do all rows of x (rows, K) begin at multiples of `size` bytes, without overlap? So the tensor memory accelerator
    wants them."""
    stride = x.stride(0)
    return x.data_ptr() % size == 0 and stride * x.dtype.itemsize % size == 0 and stride >= x.shape[1]


def as_rows(name: str, x: Tensor) -> Tensor:
    """x (..., K) as a view (rows, K). Raises ShapeError, LayoutError if it cannot be one."""
    if x.dim() < 1:
        raise ShapeError(f"{name}: expected shape (..., K), got ()")
    check_range(f"{name}'s row length", x.shape[-1], 1, MOST_FEATURES)
    check_contiguous(name, x, 1)
    if x.numel() == 0:
        return x.reshape(0, x.shape[-1])
    try:
        return x.view(-1, x.shape[-1])
    except RuntimeError:
        raise LayoutError(
            f"{name}: expected one stride from row to row, got shape {tuple(x.shape)} with strides {x.stride()}; "
            "call .contiguous()"
        ) from None
