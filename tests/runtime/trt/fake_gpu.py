"""A GPU that is this process's memory, behind runtime/cuda's CudaLayer: it records, checks and executes.

Device memory has addresses of its own that the host cannot use; every access must lie within a live allocation. Streams
are queues that run when they are synchronised, not before: what forgets to wait reads old values. Captured work is kept
and runs when it is launched, at the addresses it was captured with. `fail` makes the k-th call of a kind fail.
"""

from __future__ import annotations

import bisect
import ctypes
import threading
from collections import Counter
from contextlib import contextmanager

import numpy as np

from clip4str.runtime.cuda import Device, failure

MAPPED = 1 << 60  # where the device sees pinned host memory
POISON = 0xCB
WORDS = {"CUDA_ERROR_OUT_OF_MEMORY": "out of memory", "CUDA_ERROR_ILLEGAL_ADDRESS": "an illegal memory access"}


class FakeGpu:
    """What the layers of all recognisers share. memory: bytes that there are."""

    def __init__(self, name="Orin", capability=(8, 7), integrated=False, memory=1 << 40):
        self.device = Device(0, name, capability, integrated)
        self.memory, self.lock, self.local = memory, threading.RLock(), threading.local()
        self.blocks, self.starts, self.next = {}, [], 1 << 40
        self.pinned, self.streams, self.graphs, self.capturing = {}, {}, {}, {}
        self.retained, self.handle = 0, 5000
        self.calls, self.sizes, self.trace = Counter(), [], []
        self.faults, self.lost = {}, False

    # what tests ask and tell

    def fail(self, call, number=1, name="CUDA_ERROR_OUT_OF_MEMORY"):
        """The number-th call of this kind from now on fails."""
        self.faults[call, self.calls[call] + number] = name

    def check_empty(self):
        left = {n: getattr(self, n) for n in ("blocks", "pinned", "streams", "graphs", "capturing")}
        assert not any(left.values()), f"never given back: { ({n: list(v) for n, v in left.items() if v}) }"
        assert self.retained == 0, "the context was not released"

    @property
    def in_use(self):
        return sum(len(block) for block in self.blocks.values())

    # what the layers and the fake TensorRT use

    def called(self, name, detail=None):
        with self.lock:
            self.calls[name] += 1
            self.trace.append((threading.get_ident(), name, detail))
            fault = self.faults.pop((name, self.calls[name]), None)
            if fault in ("CUDA_ERROR_ILLEGAL_ADDRESS", "CUDA_ERROR_LAUNCH_FAILED"):
                self.lost = True
            if self.lost:
                fault = fault or "CUDA_ERROR_ILLEGAL_ADDRESS"
        if fault:
            raise failure(f"cu{name}", fault, WORDS.get(fault, "made to fail"))

    def is_current(self):
        return getattr(self.local, "depth", 0) > 0

    def new_handle(self):
        self.handle += 1
        return self.handle

    def view(self, address, size):
        """Device memory as bytes."""
        if address >= MAPPED:
            return self.host_view(address - MAPPED, size)
        at = bisect.bisect_right(self.starts, address) - 1
        assert at >= 0, f"address {address:#x} was never allocated"
        start = self.starts[at]
        block = self.blocks.get(start)
        assert block is not None, f"address {address:#x} was freed"
        assert address + size <= start + len(block), f"{size} bytes at {address - start} of a block of {len(block)}"
        return block[address - start : address - start + size]

    def host_view(self, address, size):
        block = self.pinned_block(address, size)
        assert block is not None, "not pinned host memory"
        return block

    def pinned_block(self, address, size):
        for start, (_, length) in self.pinned.items():
            if start <= address < start + length:
                assert address + size <= start + length, "beyond the end of a pinned block"
                return np.frombuffer((ctypes.c_ubyte * size).from_address(address), np.uint8)
        return None

    def send(self, stream, work, detail):
        """Queue work: a function without arguments."""
        assert self.is_current(), "no context is current"
        assert stream in self.streams, f"stream {stream}: the default stream, or none of ours"
        with self.lock:
            capture = self.capturing.get(stream)
            if capture is not None:
                assert capture[0] == threading.get_ident(), "captured in another thread"
                capture[1].append(work)
            else:
                self.streams[stream].append(work)

    def in_capture(self):
        return any(thread == threading.get_ident() for thread, _ in self.capturing.values())


class FakeCuda:
    captures = True

    def __init__(self, gpu):
        self.gpu, self.device, self._open = gpu, gpu.device, True
        gpu.retained += 1

    @contextmanager
    def current(self):
        assert self._open, "used after close"
        self.gpu.called("current")
        self.gpu.local.depth = getattr(self.gpu.local, "depth", 0) + 1
        try:
            yield
        finally:
            self.gpu.local.depth -= 1

    def close(self):
        if self._open:
            self._open = False
            self.gpu.retained -= 1

    def _called(self, name, detail=None, in_capture=False):
        assert self.gpu.is_current(), f"{name}: no context is current"
        assert in_capture or not self.gpu.in_capture(), f"{name} while this thread captures"
        self.gpu.called(name, detail)

    def memory(self):
        return self.gpu.memory - self.gpu.in_use, self.gpu.memory

    def device_of(self, address):
        starts = self.gpu.starts
        at = bisect.bisect_right(starts, address) - 1
        return 0 if at >= 0 and starts[at] in self.gpu.blocks else None

    def allocate(self, size):
        self._called("allocate", size)
        gpu = self.gpu
        with gpu.lock:
            if gpu.in_use + size > gpu.memory:
                raise failure("cuMemAlloc", "CUDA_ERROR_OUT_OF_MEMORY", "out of memory")
            address = gpu.next
            gpu.next += (size + 4095) // 4096 * 4096 + 4096
            gpu.blocks[address] = np.full(size, POISON, np.uint8)
            gpu.starts.append(address)
            gpu.sizes.append(size)
        return address

    def free(self, address):
        self._called("free", address)
        with self.gpu.lock:
            assert address in self.gpu.blocks, "freed twice, or never allocated"
            del self.gpu.blocks[address]

    def allocate_host(self, size):
        self._called("allocate_host", size)
        memory = np.full(size + 4096, POISON, np.uint8)
        address = -(-memory.ctypes.data // 4096) * 4096
        with self.gpu.lock:
            self.gpu.pinned[address] = (memory, size)
        return address

    def free_host(self, address):
        self._called("free_host", address)
        with self.gpu.lock:
            memory, _ = self.gpu.pinned.pop(address)
        memory[:] = POISON
        GRAVE.append(memory)  # not reused: a late access shows as poison, not as a crash

    def mapped(self, address):
        self._called("mapped")
        assert address in self.gpu.pinned
        return address + MAPPED

    def create_stream(self):
        self._called("create_stream")
        handle = self.gpu.new_handle()
        self.gpu.streams[handle] = []
        return handle

    def destroy_stream(self, stream):
        self._called("destroy_stream")
        assert not self.gpu.streams.pop(stream), "destroyed with work in it"

    def synchronise(self, stream):
        self._called("synchronise")
        self.run(stream)

    def run(self, stream):
        queue = self.gpu.streams.get(stream, ())
        while queue:
            queue.pop(0)()

    def wait_for(self, stream, other):
        self._called("wait_for", other)
        if other in self.gpu.streams and other != stream:
            self.gpu.send(stream, lambda: self.run(other), "wait")

    def copy_in(self, to, host, size, stream):
        self._called("copy_in", size, in_capture=True)
        self.gpu.view(to, size)
        if self.gpu.pinned_block(host, size) is None:
            assert not self.gpu.in_capture(), "a copy from pageable memory cannot be captured"
            data = np.frombuffer(ctypes.string_at(host, size), np.uint8)
            self.gpu.send(stream, lambda: np.copyto(self.gpu.view(to, size), data), "copy_in")
        else:
            work = lambda: np.copyto(self.gpu.view(to, size), self.gpu.host_view(host, size))  # noqa: E731
            self.gpu.send(stream, work, "copy_in")

    def copy_out(self, host, source, size, stream):
        self._called("copy_out", size, in_capture=True)
        self.gpu.view(source, size)
        if self.gpu.pinned_block(host, size) is None:
            assert not self.gpu.in_capture(), "a copy to pageable memory cannot be captured"
            self.run(stream)
            ctypes.memmove(host, self.gpu.view(source, size).tobytes(), size)
        else:
            work = lambda: np.copyto(self.gpu.host_view(host, size), self.gpu.view(source, size))  # noqa: E731
            self.gpu.send(stream, work, "copy_out")

    def copy(self, to, source, size, stream):
        self._called("copy", (to, source, size), in_capture=True)
        self.gpu.view(to, size), self.gpu.view(source, size)
        work = lambda: np.copyto(self.gpu.view(to, size), self.gpu.view(source, size).copy())  # noqa: E731
        self.gpu.send(stream, work, "copy")

    def begin_capture(self, stream):
        self._called("begin_capture")
        assert not self.gpu.streams[stream], "captured with work in it that was not waited for"
        self.gpu.capturing[stream] = (threading.get_ident(), [])

    def end_capture(self, stream):
        thread, work = self.gpu.capturing.pop(stream)
        assert thread == threading.get_ident()
        self._called("end_capture")
        handle = self.gpu.new_handle()
        self.gpu.graphs[handle] = work
        return handle

    def launch(self, graph, stream):
        self._called("launch", graph)
        for work in self.gpu.graphs[graph]:
            self.gpu.send(stream, work, "launch")

    def destroy_graph(self, graph):
        self._called("destroy_graph")
        del self.gpu.graphs[graph]


GRAVE = []
