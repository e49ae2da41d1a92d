"""How the program is run: as it is on exactly the rows there are, or as CUDA graphs over static buffers."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor

from .graphs import Buckets, GraphLayer, bucket_for
from .inputs import to_device
from .program import Program
from .stages import patches_of
from .towers import patch_shape, patch_view


class ProgramRun(NamedTuple):
    """A program that has run. answers (n, width) int32 on the host, see Program.columns; results and kv as
    Program.run returns them, of `rows` >= n rows, valid until the next one."""

    answers: np.ndarray
    results: Tensor
    kv: Tensor
    rows: int


class Runner(Protocol):
    largest: int  # rows at a time

    def run(self, pixels: Tensor) -> ProgramRun:
        """Pixels (n, 3, H, W), n from 1 to `largest`. Waits for the answers."""

    def resume(self, last: ProgramRun, rows: np.ndarray) -> np.ndarray:
        """Program.resume of some rows (r,) of the last run: (r, width) int32. Waits for it."""

    def reread(self, last: ProgramRun, rows: np.ndarray) -> np.ndarray:
        """Program.reread of some rows (r,) of the last run: (r, 2 T) int32. Waits for it."""

    def warm_up(self, rows: int) -> None:
        """After a run of that many rows: what resume and reread of as many would make."""


class EagerRunner:
    """Every operator launched by itself; what a CPU does."""

    def __init__(self, program: Program, largest: int) -> None:
        self.program, self.largest = program, largest

    def run(self, pixels: Tensor) -> ProgramRun:
        results, kv = self.program.run(patches_of(pixels, self.program.weights))
        return ProgramRun(results.cpu().numpy(), results, kv, len(results))

    def resume(self, last: ProgramRun, rows: np.ndarray) -> np.ndarray:
        return self.program.resume(last.results, last.kv, to_device(rows, last.kv.device)).cpu().numpy()

    def reread(self, last: ProgramRun, rows: np.ndarray) -> np.ndarray:
        return self.program.reread(last.results, last.kv, to_device(rows, last.kv.device)).cpu().numpy()

    def warm_up(self, rows: int) -> None:
        """Nothing is kept."""


class GraphRunner:
    """One graph for each bucket, captured when a batch first needs it, replayed on the caller's current stream.

    layer: None for one that is asked to `launch` alone. bucket: the one that a number of rows to resume or reread is
    padded to."""

    def __init__(
        self,
        program: Program,
        largest: int,
        layer: GraphLayer | None = None,
        bucket: Callable[[int], int] = bucket_for,
    ) -> None:
        self.program, self.largest, self._bucket = program, bucket_for(largest), bucket
        self.graphs, self.resuming, self.rereading = Buckets(layer), Buckets(layer), Buckets(layer)

    def run(self, pixels: Tensor) -> ProgramRun:
        static, n = self._static, len(pixels)
        bucket = bucket_for(n)
        here = pixels.to(static.patches.device, non_blocking=True)
        static.patches[:n].copy_(patch_view(here, self.program.weights.config))
        static.patches[n:bucket].zero_()
        self.graphs(self._run, bucket)
        return ProgramRun(static.fetch(static.results[:n]), static.results[:bucket], static.kv[:bucket], bucket)

    def resume(self, last: ProgramRun, rows: np.ndarray) -> np.ndarray:
        return self._static.fetch(self._static.resumed[: self._choose(self.resuming, self._resume, rows)])

    def reread(self, last: ProgramRun, rows: np.ndarray) -> np.ndarray:
        return self._static.fetch(self._static.reread[: self._choose(self.rereading, self._reread, rows)])

    def launch(self, rows: int) -> None:
        """Launches, one by one, all that the graphs of a bucket hold."""
        self._run(rows)
        self._resume(rows)
        if self.program.rereads:
            self._reread(rows)

    def warm_up(self, rows: int) -> None:
        every = np.arange(bucket_for(rows))
        self._choose(self.resuming, self._resume, every)
        if self.program.rereads:
            self._choose(self.rereading, self._reread, every)

    def _choose(self, graphs: Buckets, run: Callable[[int], object], rows: np.ndarray) -> int:
        """Replays over some rows of the buffers; how many. A bucket's other rows are the buffers' last one."""
        static, n = self._static, len(rows)
        bucket = self._bucket(n)
        if bucket > self.largest:
            bucket = bucket_for(n)
        chosen = np.full(bucket, self.largest, np.int64)
        chosen[:n] = rows
        static.chosen[:bucket].copy_(to_device(chosen, static.chosen.device))
        graphs(run, bucket)
        return n

    @cached_property
    def _static(self) -> Static:
        return Static(self.program, self.largest)

    def _run(self, rows: int) -> None:
        static = self._static
        self.program.run(static.patches[:rows], static.kv[:rows], static.results[:rows])

    def _resume(self, rows: int) -> None:
        static = self._static
        static.resumed[:rows] = self.program.resume(static.results, static.kv, static.chosen[:rows])

    def _reread(self, rows: int) -> None:
        static = self._static
        self.program.reread(static.results, static.kv, static.chosen[:rows], static.reread[:rows])


class Static:
    """What graphs read and write, of the largest bucket's size: their addresses are in the recordings.

    kv and results have a row more, for the padding of those graphs that go on with some rows only.
    """

    def __init__(self, program: Program, rows: int) -> None:
        w, c = program.weights, program.weights.config
        self.patches = torch.zeros(rows, *patch_shape(c), dtype=w.dtype, device=w.device)
        self.kv = torch.zeros(rows + 1, c.memory_tokens, len(w.image.key_value.weight), dtype=w.dtype, device=w.device)
        self.results = torch.zeros(rows + 1, program.width, dtype=torch.int32, device=w.device)
        self.chosen = torch.zeros(rows, dtype=torch.int64, device=w.device)
        self.resumed = torch.zeros(rows, program.width, dtype=torch.int32, device=w.device)
        self.reread = torch.zeros(rows, 2 * c.steps, dtype=torch.int32, device=w.device)
        on_gpu = w.device.type == "cuda"
        self._host = torch.empty(rows * program.width, dtype=torch.int32, device="cpu", pin_memory=on_gpu)

    def fetch(self, rows: Tensor) -> np.ndarray:
        """A copy on the host, through pinned memory; waits for it."""
        host = self._host[: rows.numel()].view(rows.shape)
        host.copy_(rows, non_blocking=True)
        if rows.is_cuda:
            torch.cuda.current_stream(rows.device).synchronize()
        return host.numpy().copy()
