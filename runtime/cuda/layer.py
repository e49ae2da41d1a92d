"""One GPU in the calls that are needed of it, and what their failures mean."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from clip4str.core.errors import BackendError

_OUT_OF_MEMORY = "CUDA_ERROR_OUT_OF_MEMORY"
# After these every call in the process fails.
_STICKY = {
    "CUDA_ERROR_ILLEGAL_ADDRESS", "CUDA_ERROR_LAUNCH_FAILED", "CUDA_ERROR_LAUNCH_TIMEOUT", "CUDA_ERROR_ASSERT",
    "CUDA_ERROR_HARDWARE_STACK_ERROR", "CUDA_ERROR_ILLEGAL_INSTRUCTION", "CUDA_ERROR_MISALIGNED_ADDRESS",
    "CUDA_ERROR_INVALID_ADDRESS_SPACE", "CUDA_ERROR_INVALID_PC", "CUDA_ERROR_ECC_UNCORRECTABLE",
    "CUDA_ERROR_CONTEXT_IS_DESTROYED", "CUDA_ERROR_MPS_CLIENT_TERMINATED",
}  # fmt: skip


class CudaError(BackendError):
    """A call of the driver failed."""


class CudaOutOfMemory(CudaError):
    """The GPU has no memory left for what was asked."""


class CudaContextLost(CudaError):
    """The process's CUDA context is beyond use; only a new process helps."""


@dataclass(frozen=True)
class Device:
    """A GPU. capability: (8, 7) for 8.7. integrated: it shares the host's memory, as a Jetson's does."""

    index: int
    name: str
    capability: tuple[int, int]
    integrated: bool

    @property
    def compute_capability(self) -> str:
        return "{}.{}".format(*self.capability)


class CudaLayer(Protocol):
    """One GPU. Addresses, streams and graphs are integers; sizes are bytes. All but close needs current().

    Every call raises CudaError, CudaOutOfMemory or CudaContextLost. Copies return before they are done; those from and
    to host memory that is not pinned may wait for the stream.
    """

    device: Device
    captures: bool  # are there graphs at all?

    def current(self) -> AbstractContextManager[None]:
        """The device's context is this thread's current one; afterwards what was."""

    def close(self) -> None:
        """Let go of the context. Twice is allowed."""

    def memory(self) -> tuple[int, int]:
        """(free, all)"""

    def device_of(self, address: int) -> int | None:
        """Index of the GPU that memory lies on, None if it is no GPU's."""

    def allocate(self, size: int) -> int:
        """Device memory, aligned to 256."""

    def free(self, address: int) -> None: ...

    def allocate_host(self, size: int) -> int:
        """Pinned host memory that the device can reach too."""

    def free_host(self, address: int) -> None: ...

    def mapped(self, address: int) -> int:
        """Where the device sees pinned host memory."""

    def create_stream(self) -> int:
        """A stream that does not wait for the default one."""

    def destroy_stream(self, stream: int) -> None: ...

    def synchronise(self, stream: int) -> None:
        """Wait for all that was sent to the stream."""

    def wait_for(self, stream: int, other: int) -> None:
        """What is sent to `stream` from now on runs after what was sent to `other` so far (1: the default stream)."""

    def copy_in(self, to: int, host: int, size: int, stream: int) -> None: ...

    def copy_out(self, host: int, source: int, size: int, stream: int) -> None: ...

    def copy(self, to: int, source: int, size: int, stream: int) -> None:
        """From device to device."""

    def begin_capture(self, stream: int) -> None:
        """Record what this thread sends to the stream, and do not run it. Other threads may go on with theirs."""

    def end_capture(self, stream: int) -> int:
        """What was recorded, ready to be launched; the stream is itself again even if this raises."""

    def launch(self, graph: int, stream: int) -> None: ...

    def destroy_graph(self, graph: int) -> None: ...


def failure(call: str, name: str, words: str) -> CudaError:
    """The error for a call of the driver that failed. name: CUDA_ERROR_..., words: what CUDA says of it."""
    text = f"{call} failed: {words} ({name})"
    if name == _OUT_OF_MEMORY:
        return CudaOutOfMemory(text)
    if name in _STICKY:
        return CudaContextLost(f"{text}; the process's CUDA context is lost, restart it")
    return CudaError(text)
