"""Pixels from wherever they are: numpy arrays, and what other libraries keep on the GPU, not copied where it fits."""

from __future__ import annotations

import ctypes
from typing import Any, NoReturn

import numpy as np

from clip4str.core.errors import ImageError, first_line

from ...cuda import CudaError
from ..contract import checked
from .memory import Stream

ALIGNMENT = 256  # of the addresses that TensorRT takes
_CPU, _CUDA, _MANAGED = 1, 2, 13  # DLPack's devices
_FLOAT = 2  # DLPack's type code
_DEFAULT_STREAM = 1  # as CUDA and the array interface number it


class DevicePixels:
    """Pixels (N, 3, H, W) float32 on our GPU, images dense, `stride` bytes from one to the next. May be cut by rows.

    owner: keeps the memory alive.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, owner: Any, address: int, shape: tuple[int, ...], stride: int) -> None:
        self.owner, self.address, self.shape, self.stride = owner, address, shape, stride

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: slice) -> DevicePixels:
        start, stop, step = rows.indices(len(self))
        count = max(0, stop - start) if step == 1 else _unsupported()
        return DevicePixels(self.owner, self.address + start * self.stride, (count, *self.shape[1:]), self.stride)

    @property
    def row_bytes(self) -> int:
        return int(np.prod(self.shape[1:])) * 4

    @property
    def usable_in_place(self) -> bool:
        return self.stride == self.row_bytes and self.address % ALIGNMENT == 0


def accept_pixels(pixels: Any, size: tuple[int, int], stream: Stream) -> np.ndarray | DevicePixels:
    """Normalised pixels (N, 3, H, W) float32 of any kind, sharing their memory; what makes them is waited for, on the
    stream. size: (height, width).

    DLPack first: its producers order their work with our stream. A `__cuda_array_interface__` need not name a stream;
    where its version could not, the default stream is waited for. Raises ImageError for anything else.
    """
    kind = type(pixels).__name__
    wanted = f"expected float32 (N, 3, {size[0]}, {size[1]})"
    try:
        if isinstance(pixels, np.ndarray):
            found: Any = pixels
        elif hasattr(pixels, "__dlpack__") and hasattr(pixels, "__dlpack_device__"):
            found = _from_dlpack(pixels, stream)
        elif hasattr(pixels, "__cuda_array_interface__"):
            found = _from_interface(pixels, stream)
        else:
            raise ImageError(f"pixels are a {kind}, {wanted} as a numpy array, DLPack or __cuda_array_interface__")
    except (TypeError, ValueError, RuntimeError, BufferError, KeyError, AttributeError) as error:
        reason = first_line(error, 200)
        raise ImageError(f"pixels are a {kind} that cannot be read ({reason}), {wanted}") from None
    except CudaError as error:
        raise ImageError(f"pixels are a {kind} whose stream cannot be waited for ({error})") from None
    if len(found.shape) != 4 or tuple(found.shape[1:]) != (3, *size) or found.dtype != np.float32:
        raise ImageError(f"pixels are {found.dtype} {tuple(found.shape)}, {wanted}")
    return checked(found) if isinstance(found, np.ndarray) else found


class _Untyped:
    """Something on the device that turned out to be no float32 array: only for the error about it."""

    def __init__(self, dtype: str, shape: tuple[int, ...]) -> None:
        self.dtype, self.shape = dtype, shape


def _from_interface(value: Any, stream: Stream) -> DevicePixels | _Untyped:
    interface = value.__cuda_array_interface__
    shape, (address, _) = tuple(int(size) for size in interface["shape"]), interface["data"]
    if interface.get("mask") is not None:
        raise ValueError("it is masked")
    if interface["typestr"] not in ("<f4", "=f4"):
        return _Untyped(_type_name(interface["typestr"]), shape)
    strides = interface.get("strides")
    _check_device(stream.cuda.device_of(int(address)) if address else stream.cuda.device.index, stream)
    theirs = interface.get("stream")
    if theirs is None and interface.get("version", 0) < 3:
        theirs = _DEFAULT_STREAM
    if theirs is not None:
        if not isinstance(theirs, int) or isinstance(theirs, bool) or theirs < 1:
            raise ValueError(f"its stream is {theirs!r}")
        stream.cuda.wait_for(stream.handle, theirs)
    return _laid_out(value, int(address), shape, None if strides is None else tuple(int(s) for s in strides))


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


def _from_dlpack(value: Any, stream: Stream) -> Any:
    kind, index = value.__dlpack_device__()
    if int(kind) == _CPU:
        return np.from_dlpack(value)
    if int(kind) not in (_CUDA, _MANAGED):
        raise ValueError(f"it is on a device of DLPack's kind {int(kind)}")
    _check_device(int(index), stream)
    # The capsule is not consumed: when it goes, with the pixels, it lets go of the memory itself.
    capsule = value.__dlpack__(stream=stream.handle)
    pointer = _capsule_pointer(capsule)
    tensor = ctypes.cast(pointer, ctypes.POINTER(_DLTensor)).contents
    if not 0 <= tensor.ndim <= 16:
        raise ValueError(f"it has {tensor.ndim} dimensions")
    shape = tuple(tensor.shape[i] for i in range(tensor.ndim))
    if (tensor.code, tensor.bits, tensor.lanes) != (_FLOAT, 32, 1):
        return _Untyped(_type_name(f"{'iufbV?c'[min(tensor.code, 6)]}{tensor.bits // 8}"), shape)
    strides = tuple(4 * tensor.strides[i] for i in range(tensor.ndim)) if tensor.strides else None
    return _laid_out((value, capsule), (tensor.data or 0) + tensor.byte_offset, shape, strides)


def _laid_out(owner: Any, address: int, shape: tuple[int, ...], strides: tuple[int, ...] | None) -> Any:
    """strides: in bytes, None for dense."""
    if any(size < 0 for size in shape) or len(shape) != 4:
        return _Untyped("float32", shape)
    row = int(np.prod(shape[1:])) * 4
    if strides is None or not all(shape):
        return DevicePixels(owner, address, shape, row)
    dense = (shape[2] * shape[3] * 4, shape[3] * 4, 4)
    if len(strides) != 4 or any(s != d for s, d, n in zip(strides[1:], dense, shape[1:]) if n > 1):
        raise ValueError("its images are not contiguous: (3, H, W) in one piece each; make it contiguous")
    if shape[0] > 1 and strides[0] < 0:
        raise ValueError("its images are in reverse order in memory; make it contiguous")
    return DevicePixels(owner, address, shape, row if shape[0] == 1 else strides[0])


def _check_device(index: int | None, stream: Stream) -> None:
    ours = stream.cuda.device.index
    if index is None:
        raise ValueError("its memory is on no GPU")
    if index != ours:
        raise ValueError(f"it is on cuda:{index}, the recogniser is on cuda:{ours}; move it there")


def _capsule_pointer(capsule: Any) -> int:
    get = ctypes.pythonapi.PyCapsule_GetPointer
    get.restype, get.argtypes = ctypes.c_void_p, [ctypes.py_object, ctypes.c_char_p]
    return get(capsule, b"dltensor")


def _type_name(code: str) -> str:
    try:
        return np.dtype(code).name
    except TypeError:
        return f"of type {code[:20]!r}"


def _unsupported() -> NoReturn:
    raise ImageError("pixels on the GPU are cut by whole runs of rows only")
