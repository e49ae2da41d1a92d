"""CUDA by cuda.bindings (cuda-python 12.6 and newer): every call returns (status, values...)."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from clip4str.core.errors import BackendError, first_line

from .layer import CudaError, Device, failure


class BindingsLayer:
    """A CudaLayer. Raises BackendError if the driver is not there, CudaError if the GPU cannot be used."""

    captures = True

    def __init__(self, driver: Any, index: int) -> None:
        self._driver = driver
        self._device = self._call("cuDeviceGet", index)
        kinds = driver.CUdevice_attribute
        major, minor, integrated = (
            int(self._call("cuDeviceGetAttribute", kind, self._device))
            for kind in (
                kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
                kinds.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
                kinds.CU_DEVICE_ATTRIBUTE_INTEGRATED,
            )
        )
        name = self._call("cuDeviceGetName", 256, self._device).split(b"\0")[0].decode(errors="replace")
        self.device = Device(index, name, (major, minor), bool(integrated))
        self._context = self._call("cuDevicePrimaryCtxRetain", self._device)

    @classmethod
    def count(cls, driver: Any) -> int:
        """GPUs there are, at least one. Raises BackendError."""
        try:
            (status,) = driver.cuInit(0)
            status, count = driver.cuDeviceGetCount() if not int(status) else (status, 0)
        except RuntimeError as error:  # libcuda is not there, or older than its bindings
            raise BackendError(f"no NVIDIA driver here ({first_line(error, 200)})") from None
        if int(status) or not count:
            words = _words(driver, status) if int(status) else "no GPU was found"
            raise BackendError(f"no usable NVIDIA GPU here ({words})")
        return int(count)

    @contextmanager
    def current(self) -> Iterator[None]:
        self._call("cuCtxPushCurrent", self._context)
        try:
            yield
        finally:
            self._driver.cuCtxPopCurrent()

    def close(self) -> None:
        if self._context is not None:
            self._context = None
            self._driver.cuDevicePrimaryCtxRelease(self._device)

    def memory(self) -> tuple[int, int]:
        free, total = self._call("cuMemGetInfo")
        return int(free), int(total)

    def device_of(self, address: int) -> int | None:
        kind = self._driver.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
        status, index = self._driver.cuPointerGetAttribute(kind, address)
        return None if int(status) or int(index) < 0 else int(index)

    def allocate(self, size: int) -> int:
        return int(self._call("cuMemAlloc", size))

    def free(self, address: int) -> None:
        self._call("cuMemFree", address)

    def allocate_host(self, size: int) -> int:
        return int(self._call("cuMemHostAlloc", size, self._driver.CU_MEMHOSTALLOC_DEVICEMAP))

    def free_host(self, address: int) -> None:
        self._call("cuMemFreeHost", address)

    def mapped(self, address: int) -> int:
        return int(self._call("cuMemHostGetDevicePointer", address, 0))

    def create_stream(self) -> int:
        return int(self._call("cuStreamCreate", int(self._driver.CUstream_flags.CU_STREAM_NON_BLOCKING)))

    def destroy_stream(self, stream: int) -> None:
        self._call("cuStreamDestroy", stream)

    def synchronise(self, stream: int) -> None:
        self._call("cuStreamSynchronize", stream)

    def wait_for(self, stream: int, other: int) -> None:
        event = self._call("cuEventCreate", int(self._driver.CUevent_flags.CU_EVENT_DISABLE_TIMING))
        try:
            self._call("cuEventRecord", event, other)
            self._call("cuStreamWaitEvent", stream, event, 0)
        finally:
            self._driver.cuEventDestroy(event)  # which waits until it is over by itself

    def copy_in(self, to: int, host: int, size: int, stream: int) -> None:
        self._call("cuMemcpyHtoDAsync", to, host, size, stream)

    def copy_out(self, host: int, source: int, size: int, stream: int) -> None:
        self._call("cuMemcpyDtoHAsync", host, source, size, stream)

    def copy(self, to: int, source: int, size: int, stream: int) -> None:
        self._call("cuMemcpyDtoDAsync", to, source, size, stream)

    def begin_capture(self, stream: int) -> None:
        mode = self._driver.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
        self._call("cuStreamBeginCapture", stream, mode)

    def end_capture(self, stream: int) -> int:
        graph = self._call("cuStreamEndCapture", stream)
        try:
            return int(self._call("cuGraphInstantiate", graph, 0))
        finally:
            self._driver.cuGraphDestroy(graph)

    def launch(self, graph: int, stream: int) -> None:
        self._call("cuGraphLaunch", graph, stream)

    def destroy_graph(self, graph: int) -> None:
        self._call("cuGraphExecDestroy", graph)

    def _call(self, name: str, *arguments: Any) -> Any:
        """What the call gives beside its status: nothing, a value, or several."""
        try:
            status, *values = getattr(self._driver, name)(*arguments)
        except RuntimeError as error:  # the driver does not have the function
            raise CudaError(f"{name}: {first_line(error, 200)}; the driver is older than cuda-python") from None
        if int(status):
            raise failure(name, getattr(status, "name", str(status)), _words(self._driver, status))
        return values[0] if len(values) == 1 else values


def _words(driver: Any, status: Any) -> str:
    _, words = driver.cuGetErrorString(status)
    return words.decode(errors="replace") if words else f"error {int(status)}"
