"""Where kernels run in tests: on a GPU if torch sees one, else on the CPU through Triton's interpreter.

CLIP4STR_TEST_DEVICE=cpu or =cuda decides otherwise. CLIP4STR_REQUIRE_GPU=1 is for `pytest -m gpu` on a machine that has
a GPU: a test so marked then fails where it would be skipped, or where there is no GPU. TF32 is off: float32 is float32.
Imported by conftest.py before anything imports triton.
"""

from __future__ import annotations

import functools
import importlib
import inspect
import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from typing import Any

os.environ["NVIDIA_TF32_OVERRIDE"] = "0"  # some images export 1
os.environ.pop("TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", None)
if os.environ.get("CLIP4STR_TEST_DEVICE") == "cpu":
    os.environ["CUDA_VISIBLE_DEVICES"] = ""

import pytest
import torch
from torch import Tensor

DEVICE = torch.device(os.environ.get("CLIP4STR_TEST_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu"))
ON_GPU = DEVICE.type == "cuda"
REQUIRE_GPU = os.environ.get("CLIP4STR_REQUIRE_GPU", "") not in ("", "0")
os.environ["TRITON_INTERPRET"] = "0" if ON_GPU else "1"
torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = False

if REQUIRE_GPU:
    importlib.import_module("triton")  # modules of tests skip themselves where there is none
needs_gpu = pytest.mark.skipif(not ON_GPU, reason="there is no GPU here")
needs_interpreter = pytest.mark.skipif(ON_GPU, reason="interprets kernels: CLIP4STR_TEST_DEVICE=cpu")


class Moved:
    """Copies on DEVICE of the CPU tensors of a call, with their strides, what lies around them, and what they share."""

    def __init__(self) -> None:
        self._storages: dict[int, tuple[Tensor, Tensor]] = {}  # all elements of a storage: here, there
        self._sources: dict[int, tuple[Any, Any]] = {}  # id of what went -> (what it was, itself)

    def send(self, value: Any) -> Any:
        if isinstance(value, Tensor):
            sent = self._tensor(value) if value.device.type == "cpu" else value
        elif is_dataclass(value) and not isinstance(value, type):
            tensors = {f.name: getattr(value, f.name) for f in fields(value)}
            sent = replace(value, **{k: self.send(v) for k, v in tensors.items() if isinstance(v, Tensor)})
        elif isinstance(value, tuple):
            parts = [self.send(part) for part in value]
            sent = type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
        else:
            return value
        self._sources[id(sent)] = value, sent
        return sent

    def _tensor(self, value: Tensor) -> Tensor:
        storage = value.untyped_storage()
        if storage.data_ptr() not in self._storages:
            whole = torch.empty(0, dtype=value.dtype).set_(storage)
            self._storages[storage.data_ptr()] = whole, whole.to(DEVICE, copy=True)
        there = self._storages[storage.data_ptr()][1]
        return there.as_strided(value.shape, value.stride(), value.storage_offset())

    def write_back(self) -> None:
        for here, there in self._storages.values():
            if here.numel():
                here.copy_(there)

    def receive(self, value: Any) -> Any:
        """An argument that was returned is the argument."""
        if id(value) in self._sources:
            return self._sources[id(value)][0]
        if isinstance(value, Tensor):
            return value.cpu()
        if isinstance(value, tuple):
            parts = [self.receive(part) for part in value]
            return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
        return value


def there(function: Callable[..., Any]) -> Callable[..., Any]:
    """An operator, or a function that launches a kernel, for CPU tensors: computes on DEVICE what was asked of the
    kernel (an operator: implementation="triton"), and brings answers and what was written to back."""
    operator = "implementation" in inspect.signature(function).parameters

    @functools.wraps(function)
    def call(*args: Any, **options: Any) -> Any:
        if not ON_GPU or (operator and options.get("implementation") != "triton"):
            return function(*args, **options)
        moved = Moved()
        out = function(*moved.send(args), **{name: moved.send(value) for name, value in options.items()})
        moved.write_back()
        return moved.receive(out)

    return call


@contextmanager
def poisoned() -> Iterator[None]:
    """Memory that torch hands out uninitialised holds NaN, or the largest integer: nothing unwritten goes unseen."""
    was = torch.are_deterministic_algorithms_enabled(), torch.is_deterministic_algorithms_warn_only_enabled()
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of operations that may not be deterministic: torch's, in references
            yield
    finally:
        torch.use_deterministic_algorithms(was[0], warn_only=was[1])
