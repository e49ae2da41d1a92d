"""Arrays that other libraries keep on the GPU, by what they say of them: DLPack or `__cuda_array_interface__`."""

from __future__ import annotations

import ctypes
from typing import Any

import numpy as np

from clip4str.core.device_array import FROM, DeviceArray
from clip4str.core.errors import ImageError, first_line

from .layer import CudaError, CudaLayer

_CPU, _CUDA, _MANAGED = 1, 2, 13  # DLPack's devices
_DEFAULT_STREAM = 1  # as CUDA and the array interface number it


def array_of(name: str, value: Any, cuda: CudaLayer, stream: int, wanted: str) -> np.ndarray | DeviceArray:
    """An array of any kind, sharing its memory; what makes its contents is waited for, on the stream.

    DLPack first: its producers order their work with our stream. A `__cuda_array_interface__` need not name a stream;
    where its version could not, the default stream is waited for. Raises ImageError, which says `name` and `wanted`,
    for anything else.
    """
    kind = type(value).__name__
    try:
        if isinstance(value, np.ndarray):
            return value
        if hasattr(value, "__dlpack__") and hasattr(value, "__dlpack_device__"):
            return _from_dlpack(value, cuda, stream)
        if hasattr(value, "__cuda_array_interface__"):
            return _from_interface(value, cuda, stream)
    except (TypeError, ValueError, RuntimeError, BufferError, KeyError, AttributeError) as error:
        raise ImageError(f"{name} a {kind} that cannot be read ({first_line(error, 200)}), {wanted}") from None
    except CudaError as error:
        raise ImageError(f"{name} a {kind} whose stream cannot be waited for ({error})") from None
    raise ImageError(f"{name} a {kind}, {wanted} as a numpy array, {FROM}")


def _from_interface(value: Any, cuda: CudaLayer, stream: int) -> DeviceArray:
    interface = value.__cuda_array_interface__
    shape, (address, _) = tuple(int(size) for size in interface["shape"]), interface["data"]
    address, strides = int(address), interface.get("strides")
    if interface.get("mask") is not None:
        raise ValueError("it is masked")
    if strides is not None and len(strides) != len(shape):
        raise ValueError(f"it has {len(shape)} dimensions and {len(strides)} strides")
    if not address and all(shape):
        raise ValueError("it is at address 0")
    _check_device(cuda.device_of(address) if address else cuda.device.index, cuda)
    theirs = interface.get("stream")
    if theirs is None and interface.get("version", 0) < 3:
        theirs = _DEFAULT_STREAM
    if theirs is not None:
        if not isinstance(theirs, int) or isinstance(theirs, bool) or theirs < 1:
            raise ValueError(f"its stream is {theirs!r}")
        cuda.wait_for(stream, theirs)
    steps = None if strides is None else tuple(int(step) for step in strides)
    return DeviceArray(address, shape, steps, _type_name(interface["typestr"]), owner=value)


class _DLTensor(ctypes.Structure):
    """dlpack.h's DLTensor."""

    _fields_ = (
        ("data", ctypes.c_void_p),
        ("device_type", ctypes.c_int32),
        ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    )


def _from_dlpack(value: Any, cuda: CudaLayer, stream: int) -> np.ndarray | DeviceArray:
    kind, index = value.__dlpack_device__()
    if int(kind) == _CPU:
        return np.from_dlpack(value)
    if int(kind) not in (_CUDA, _MANAGED):
        raise ValueError(f"it is on a device of DLPack's kind {int(kind)}")
    _check_device(int(index), cuda)
    # The capsule is not consumed: when it goes, with the array, it lets go of the memory itself.
    capsule = value.__dlpack__(stream=stream)
    tensor = ctypes.cast(_capsule_pointer(capsule), ctypes.POINTER(_DLTensor)).contents
    if not 0 <= tensor.ndim <= 16:
        raise ValueError(f"it has {tensor.ndim} dimensions")
    shape = tuple(tensor.shape[i] for i in range(tensor.ndim))
    item = tensor.bits // 8 * tensor.lanes
    strides = tuple(item * tensor.strides[i] for i in range(tensor.ndim)) if tensor.strides else None
    dtype = _type_name(f"{'iufbV?c'[min(tensor.code, 6)]}{item}")
    address = (tensor.data or 0) + tensor.byte_offset
    return DeviceArray(address, shape, strides, dtype, owner=(value, capsule))


def _check_device(index: int | None, cuda: CudaLayer) -> None:
    if index is None:
        raise ValueError("its memory is on no GPU")
    if index != cuda.device.index:
        raise ValueError(f"it is on cuda:{index}, the recogniser is on cuda:{cuda.device.index}; move it there")


def _capsule_pointer(capsule: Any) -> int:
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return get(capsule, b"dltensor")


def _type_name(code: str) -> str:
    try:
        return np.dtype(code.replace("=", "<")).name
    except TypeError:
        return f"of type {code[:20]!r}"
