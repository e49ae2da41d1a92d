"""The few CUDA calls that a backend without torch needs: memory, copies, one stream, graphs.

    over_bindings   by cuda.bindings, from the package cuda-python
    presence        whether there is a GPU at all, told without a call of the driver
    over_pycuda     by pycuda, where that is what the board has; it cannot capture graphs

Either is imported when a GPU is opened, and shares the device's primary context with torch, TensorRT and whatever else
is in the process: the context is current inside `with layer.current()`, the caller's own before and after.
"""

from __future__ import annotations

import re
from typing import Any

from clip4str.core.errors import BackendError, first_line

from .layer import CudaContextLost, CudaError, CudaLayer, CudaOutOfMemory, Device, failure

__all__ = [
    "CudaContextLost",
    "CudaError",
    "CudaLayer",
    "CudaOutOfMemory",
    "Device",
    "device_index",
    "failure",
    "open_cuda",
    "why_unusable",
]

_INSTALL = "pip install cuda-bindings (on JetPack 6: 'cuda-bindings<13'; or pycuda, where the board has it)"


def open_cuda(device: Any = None) -> CudaLayer:
    """device: None or "cuda" for the first GPU, "cuda:N" or N. Raises BackendError, one line with what to install."""
    index = device_index(device)
    layer, module = _library()
    count = layer.count(module)
    if index >= count:
        raise BackendError(f"device cuda:{index}: there {'is 1 GPU' if count == 1 else f'are {count} GPUs'}, from 0 on")
    return layer(module, index)


def device_index(device: Any) -> int:
    """Raises BackendError if it is no GPU."""
    if device is None:
        return 0
    found = re.fullmatch(r"cuda(?::(\d{1,3}))?|(\d{1,3})", str(device))
    if found is None:
        raise BackendError(f"unknown device {str(device)[:60]!r}; TensorRT runs on cuda or cuda:NUMBER")
    return int(found[1] or found[2] or 0)


def why_unusable() -> str | None:
    """Why there is no GPU to work with here, in words; None if there is one. Opens none."""
    try:
        layer, module = _library()
        layer.count(module)
    except BackendError as error:
        return str(error)
    return None


def _library() -> tuple[Any, Any]:
    """The class of the layer and the library it works over. Raises BackendError."""
    try:
        from cuda.bindings import driver

        from .over_bindings import BindingsLayer

        return BindingsLayer, driver
    except ImportError as error:
        missing = str(error)
    try:
        import pycuda.driver

        from .over_pycuda import PycudaLayer

        return PycudaLayer, pycuda.driver
    except ModuleNotFoundError:
        raise BackendError(f"no CUDA for Python here ({missing}); {_INSTALL}") from None
    except ImportError as error:
        raise BackendError(f"pycuda cannot be imported ({first_line(error, 200)}); {_INSTALL}") from None
