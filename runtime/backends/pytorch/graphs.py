"""CUDA graphs: a program for a few fixed numbers of rows, recorded once each, then replayed with one launch.

Rows are padded to the next bucket. All graphs work on the first rows of the same static buffers and share one private
memory pool, so what holds for all of them holds here: one at a time, and what was read out of the buffers is valid
until the next.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from functools import partial
from typing import Protocol

import torch

from ...errors import BackendError

BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256)

Run = Callable[[], object]


class GraphLayer(Protocol):
    """What is needed of CUDA graphs; tests put another in its place."""

    def capture(self, run: Run) -> Run:
        """Run once, then record; returns what replays the recording on the caller's current stream."""


class CudaGraphs:
    """torch's CUDA graphs, captured on a side stream so that other work of the process, other threads' captures
    included, goes on meanwhile."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        with torch.cuda.device(device):
            self._stream, self._pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()

    def capture(self, run: Run) -> Run:
        """Raises torch.cuda.OutOfMemoryError, after which nothing of the graph is left, BackendError."""
        try:
            return self._capture(run)
        except (RuntimeError, torch.cuda.OutOfMemoryError) as error:
            gc.collect()
            torch.cuda.empty_cache()
            if is_out_of_memory(error):
                raise torch.cuda.OutOfMemoryError("out of memory while a CUDA graph was captured") from None
            reason = str(error).strip().splitlines()[0][:200]
            raise BackendError(f"a CUDA graph cannot be captured ({reason}); graphs=False runs without") from None

    def _capture(self, run: Run) -> Run:
        with torch.cuda.device(self.device):
            current = torch.cuda.current_stream()
            self._stream.wait_stream(current)
            with torch.cuda.stream(self._stream):
                run()  # compiles kernels and makes libraries choose theirs, which must not happen while recording
            self._stream.synchronize()
            # cuBLAS keeps a workspace for each stream: one that graphs and other users of the same (pooled) stream
            # have in common would be written to by both. Cleared, it is allocated anew in the graphs' own pool.
            _clear_workspaces()
            graph = torch.cuda.CUDAGraph()
            try:
                with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
                    run()
            finally:
                _clear_workspaces()
            current.wait_stream(self._stream)
        return graph.replay


class Buckets:
    """run(rows) for every bucket, captured when it is first wanted."""

    def __init__(self, layer: GraphLayer, run: Callable[[int], object]) -> None:
        self._layer, self._run = layer, run
        self._replays: dict[int, Run] = {}

    def __call__(self, rows: int) -> None:
        """Raises what GraphLayer.capture does; then nothing is kept of the bucket."""
        if rows not in self._replays:
            self._replays[rows] = self._layer.capture(partial(self._run, rows))
        self._replays[rows]()

    @property
    def captured(self) -> list[int]:
        return sorted(self._replays)


def bucket_for(rows: int) -> int:
    """The smallest bucket that holds `rows`, the largest for more than it holds."""
    return next((bucket for bucket in BUCKETS if bucket >= rows), BUCKETS[-1])


def is_out_of_memory(error: BaseException | None) -> bool:
    """Is it, or was it raised while handling, a lack of memory? Libraries word theirs as they like."""
    while error is not None:
        text = str(error)
        if isinstance(error, torch.cuda.OutOfMemoryError) or "out of memory" in text or "ALLOC_FAILED" in text:
            return True
        error = error.__cause__ or error.__context__
    return False


def _clear_workspaces() -> None:
    clear = getattr(torch._C, "_cuda_clearCublasWorkspaces", None)
    if clear is not None:
        clear()
