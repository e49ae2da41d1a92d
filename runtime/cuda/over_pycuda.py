"""CUDA by pycuda: objects that free themselves when they are let go of, and no graphs."""

from __future__ import annotations

import ctypes
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np

from clip4str.core.errors import BackendError, first_line

from .layer import Device, failure

_NON_BLOCKING = 1


class PycudaLayer:
    """A CudaLayer without graphs. Its context is the primary one, which pycuda.autoinit's is not."""

    captures = False

    def __init__(self, driver: Any, index: int) -> None:
        self._driver, self._thread = driver, threading.get_ident()
        self._held: dict[int, Any] = {}  # what lies or runs at an address: pycuda frees it with the last reference
        with self._errors("cuDevicePrimaryCtxRetain"):
            device = driver.Device(index)
            kinds = driver.device_attribute
            integrated = bool(device.get_attribute(kinds.INTEGRATED))
            self.device = Device(index, device.name(), tuple(device.compute_capability()), integrated)
            self._context = device.retain_primary_context()

    @classmethod
    def count(cls, driver: Any) -> int:
        """GPUs there are, at least one. Raises BackendError."""
        try:
            driver.init()
            count = int(driver.Device.count())
        except driver.Error as error:
            raise BackendError(f"no usable NVIDIA GPU here ({first_line(error)})") from None
        if not count:
            raise BackendError("no usable NVIDIA GPU here (no GPU was found)")
        return count

    @contextmanager
    def current(self) -> Iterator[None]:
        with self._errors("cuCtxPushCurrent"):
            self._context.push()
        try:
            yield
        finally:
            self._driver.Context.pop()

    def close(self) -> None:
        context, self._context = self._context, None
        if context is None:
            return
        with suppress(self._driver.Error):
            context.push()
            try:
                self._held.clear()
            finally:
                self._driver.Context.pop()
        with suppress(self._driver.Error):
            context.detach()
        self._finish_detaching()

    def _finish_detaching(self) -> None:
        """pycuda detaches a context as if it had made it. In the thread that it came from it pushes it first, for the
        driver to pop, which it does with no primary one; in another thread it only forgets it."""
        with suppress(OSError):
            libcuda = ctypes.CDLL("libcuda.so.1")
            if threading.get_ident() == self._thread:
                libcuda.cuCtxPopCurrent_v2(ctypes.byref(ctypes.c_void_p()))
                return
            device = ctypes.c_int()
            if libcuda.cuDeviceGet(ctypes.byref(device), self.device.index) == 0:
                libcuda.cuDevicePrimaryCtxRelease_v2(device)

    def memory(self) -> tuple[int, int]:
        with self._errors("cuMemGetInfo"):
            return self._driver.mem_get_info()

    def device_of(self, address: int) -> int | None:
        return self.device.index  # pycuda does not tell

    def allocate(self, size: int) -> int:
        with self._errors("cuMemAlloc"):
            return self._hold(self._driver.mem_alloc(size))

    def free(self, address: int) -> None:
        with self._errors("cuMemFree"):
            self._held.pop(address).free()

    def allocate_host(self, size: int) -> int:
        with self._errors("cuMemHostAlloc"):
            flags = self._driver.host_alloc_flags.DEVICEMAP
            array = self._driver.pagelocked_empty(size, np.uint8, mem_flags=flags)
        self._held[array.ctypes.data] = array
        return array.ctypes.data

    def free_host(self, address: int) -> None:
        with self._errors("cuMemFreeHost"):
            self._held.pop(address).base.free()

    def mapped(self, address: int) -> int:
        with self._errors("cuMemHostGetDevicePointer"):
            return int(self._held[address].base.get_device_pointer())

    def create_stream(self) -> int:
        with self._errors("cuStreamCreate"):
            stream = self._driver.Stream(_NON_BLOCKING)
        self._held[stream.handle] = stream
        return stream.handle

    def destroy_stream(self, stream: int) -> None:
        self._held.pop(stream)

    def synchronise(self, stream: int) -> None:
        with self._errors("cuStreamSynchronize"):
            self._held[stream].synchronize()

    def wait_for(self, stream: int, other: int) -> None:
        with self._errors("cuCtxSynchronize"):
            self._driver.Context.synchronize()  # pycuda cannot name a stream that is not its own

    def copy_in(self, to: int, host: int, size: int, stream: int) -> None:
        with self._errors("cuMemcpyHtoDAsync"):
            self._driver.memcpy_htod_async(to, _bytes(host, size), self._held[stream])

    def copy_out(self, host: int, source: int, size: int, stream: int) -> None:
        with self._errors("cuMemcpyDtoHAsync"):
            self._driver.memcpy_dtoh_async(_bytes(host, size), source, self._held[stream])

    def copy(self, to: int, source: int, size: int, stream: int) -> None:
        with self._errors("cuMemcpyDtoDAsync"):
            self._driver.memcpy_dtod_async(to, source, size, self._held[stream])

    def begin_capture(self, stream: int) -> None:
        raise BackendError("pycuda has no CUDA graphs")

    end_capture = launch = destroy_graph = begin_capture

    def _hold(self, allocation: Any) -> int:
        self._held[int(allocation)] = allocation
        return int(allocation)

    @contextmanager
    def _errors(self, call: str) -> Iterator[None]:
        try:
            yield
        except self._driver.MemoryError as error:
            raise failure(call, "CUDA_ERROR_OUT_OF_MEMORY", first_line(error)) from None
        except self._driver.LaunchError as error:
            raise failure(call, "CUDA_ERROR_LAUNCH_FAILED", first_line(error)) from None
        except self._driver.Error as error:
            illegal = "illegal memory access" in str(error)
            name = "CUDA_ERROR_ILLEGAL_ADDRESS" if illegal else type(error).__name__
            raise failure(call, name, first_line(error)) from None


def _bytes(address: int, size: int) -> Any:
    return (ctypes.c_ubyte * size).from_address(address)
