"""Arrays on a fake GPU as other libraries show them: DLPack and __cuda_array_interface__."""

from __future__ import annotations

import ctypes

import numpy as np

_new = ctypes.pythonapi.PyCapsule_New
_new.restype, _new.argtypes = ctypes.py_object, [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p]


class DeviceArray:
    """An array in a fake GPU's memory. offset: bytes before it. pad: bytes between rows. `written` by a stream that it
    owns: its contents are there only after that stream has run."""

    def __init__(self, gpu, cuda, values, offset=0, pad=0):
        self.gpu, self.cuda, self.values = gpu, cuda, values
        self.row = values.strides[0] + pad
        with cuda.current():
            self.block = cuda.allocate(offset + self.row * len(values))
            self.stream = cuda.create_stream()
            self.address = self.block + offset
            gpu.send(self.stream, self._write, "producer")

    def _write(self):
        for i, value in enumerate(self.values):
            self.gpu.view(self.address + i * self.row, value.nbytes)[:] = value.reshape(-1).view(np.uint8)

    def free(self):
        with self.cuda.current():
            self.cuda.run(self.stream)
            self.cuda.destroy_stream(self.stream)
            self.cuda.free(self.block)


class Interface:
    def __init__(self, array, version=3, **changes):
        values = array.values
        strides = (array.row, *values.strides[1:])
        self.__cuda_array_interface__ = {
            "shape": values.shape, "typestr": values.dtype.str, "data": (array.address, False), "version": version,
            "strides": None if strides == values.strides else strides, "stream": array.stream, **changes,
        }  # fmt: skip


class _Managed(ctypes.Structure):
    _fields_ = (
        ("data", ctypes.c_void_p), ("device_type", ctypes.c_int32), ("device_id", ctypes.c_int32),
        ("ndim", ctypes.c_int32), ("code", ctypes.c_uint8), ("bits", ctypes.c_uint8), ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)), ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64), ("manager", ctypes.c_void_p), ("deleter", ctypes.c_void_p),
    )  # fmt: skip


class DLPack:
    """data lies `byte_offset` before the array's address."""

    def __init__(self, array, device=(2, 0), byte_offset=0, code=2, bits=32, strides=()):
        self.array, self.device, self.how = array, device, (byte_offset, code, bits, strides)
        self.asked = []

    def __dlpack_device__(self):
        return self.device

    def __dlpack__(self, *, stream=None):
        self.asked.append(stream)
        array, (byte_offset, code, bits, strides) = self.array, self.how
        with array.cuda.current():
            array.cuda.wait_for(stream, array.stream)
        values = array.values
        if strides == ():
            strides = (array.row // 4, *(s // 4 for s in values.strides[1:]))
        self.kept = [(ctypes.c_int64 * values.ndim)(*values.shape)]
        self.kept.append(None if strides is None else (ctypes.c_int64 * values.ndim)(*strides))
        shape, steps = (None if x is None else ctypes.cast(x, ctypes.POINTER(ctypes.c_int64)) for x in self.kept)
        managed = _Managed(
            array.address - byte_offset, *self.device, values.ndim, code, bits, 1, shape, steps, byte_offset, None, None
        )
        self.kept.append(managed)
        return _new(ctypes.addressof(managed), b"dltensor", None)
