"""CUDA graphs: a program for a few fixed numbers of rows, recorded once each, then replayed with one launch.

Rows are padded to the next bucket. All graphs work on the first rows of the same static buffers and share one private
memory pool, so what holds for all of them holds here: one at a time, and what was read out of the buffers is valid
until the next.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Any, Protocol, TypeVar

import torch

from clip4str.core.driver import PredictAndRefine
from clip4str.core.errors import BackendError, Clip4StrError, first_line
from clip4str.core.reading import Reading, Stages

from ..capturing import capturing, nothing_captured
from ..memory_limits import ladder, padded

BUCKETS = ladder(256)

Run = Callable[[], object]
Answer = TypeVar("Answer")


class GraphLayer(Protocol):
    """What is needed of CUDA graphs; tests put another in its place."""

    def capture(self, run: Run) -> Run:
        """Run once, then record; returns what replays the recording on the caller's current stream."""


class CudaGraphs:
    """torch's CUDA graphs, captured on a side stream so that other work of the process goes on meanwhile.

    Captures take turns, see capturing.py. Another library that waits for the whole device breaks one.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        with torch.cuda.device(device):
            self._stream, self._pool = torch.cuda.Stream(), torch.cuda.graph_pool_handle()

    def capture(self, run: Run) -> Run:
        """Raises torch.cuda.OutOfMemoryError, after which nothing of the graph is left, BackendError."""
        try:
            self._launch(run)
            with suppress(_Broken), capturing():
                return self._capture(run)
            self._abandon()
            with capturing():
                return self._capture(run)
        except Exception as error:  # of torch, CUDA, Triton, or of the compilers that Triton starts
            self._abandon()
            if isinstance(error, Clip4StrError):
                raise
            if is_out_of_memory(error):
                raise torch.cuda.OutOfMemoryError("out of memory while a CUDA graph was captured") from None
            reason = first_line(error.__cause__ if isinstance(error, _Broken) and error.__cause__ else error)
            raise BackendError(f"a CUDA graph cannot be captured ({reason}); graphs=False runs without") from None

    def _launch(self, run: Run) -> None:
        """Compiles kernels and makes libraries choose theirs, which must not happen while recording; and outside of
        the captures' lock: other recognisers capture meanwhile."""
        with torch.cuda.device(self.device):
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                run()
            self._stream.synchronize()

    def _capture(self, run: Run) -> Run:
        """Raises _Broken where another try may succeed."""
        try:
            return self._recorded(run)
        except Exception as error:
            if isinstance(error, Clip4StrError) or is_out_of_memory(error):
                raise
            raise _Broken from error

    def _recorded(self, run: Run) -> Run:
        with torch.cuda.device(self.device):
            current = torch.cuda.current_stream()
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

    def _abandon(self) -> None:
        """After a capture that failed: waits for what was launched, and does not touch its part of the pool again."""
        with suppress(RuntimeError):  # a broken device fails at every call; what it said first is reported
            self._stream.synchronize()
            self._pool = torch.cuda.graph_pool_handle()
            release_memory()


class _Broken(Exception):
    """A capture that failed, perhaps since another library waited for the whole device meanwhile."""


class Buckets:
    """run(rows) for every bucket, captured when it is first wanted."""

    def __init__(self, layer: GraphLayer | None) -> None:
        self._layer = layer
        self._replays: dict[int, Run] = {}

    def __call__(self, run: Callable[[int], object], rows: int) -> None:
        """run: always the same. It is not kept: its owner's buffers shall be freed with the owner.

        Raises what GraphLayer.capture does; then nothing is kept of the bucket.
        """
        if rows not in self._replays:
            assert self._layer is not None
            self._replays[rows] = self._layer.capture(partial(run, rows))
        self._replays[rows]()

    @property
    def captured(self) -> list[int]:
        return sorted(self._replays)


def release_memory() -> None:
    """Gives the GPU what nothing holds any more, but not while another thread captures: it would break the capture."""
    gc.collect()
    with nothing_captured():
        torch.cuda.empty_cache()


def bucket_for(rows: int) -> int:
    """The smallest bucket that holds `rows`, the largest for more than it holds."""
    return padded(rows, BUCKETS)


def read_driven(driver: PredictAndRefine, pixels: Any, stages: Stages, device: torch.device) -> Reading:
    """The driver's way, all rows at once. Raises BackendError if memory does not suffice, or if torch fails."""
    reading = attempt(partial(driver, stages, pixels))
    if reading is None:
        if device.type == "cuda":
            release_memory()
        raise BackendError(f"out of memory on {device} with {len(pixels)} images; load with a smaller batch_size")
    return reading


def attempt(read: Callable[[], Answer]) -> Answer | None:
    """None if memory ran out. Errors are let go of here, with the tensors that their tracebacks hold."""
    try:
        return read()
    except Clip4StrError:
        raise
    except Exception as error:  # of torch, CUDA, Triton, or of the compilers that Triton starts
        if is_out_of_memory(error):
            return None
        raise BackendError(f"reading failed in torch ({first_line(error)})") from error


def is_out_of_memory(error: BaseException | None) -> bool:
    """Is it, or was it raised while handling, a lack of memory? Libraries word theirs as they like."""
    while error is not None:
        text = str(error)
        if isinstance(error, (torch.cuda.OutOfMemoryError, MemoryError)):
            return True
        if any(words in text for words in ("out of memory", "ALLOC_FAILED", "can't allocate memory")):
            return True
        error = error.__cause__ or error.__context__
    return False


def _clear_workspaces() -> None:
    clear = getattr(torch._C, "_cuda_clearCublasWorkspaces", None)
    if clear is not None:
        clear()
