"""Which batch sizes' kernels are compiled. The first batch of a size compiles 15 to 25 of them, seconds each, which
keeps nobody waiting who reads batches of other sizes, and no captures."""

from __future__ import annotations

import hashlib
import threading
import warnings
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import torch

from clip4str.core.cpu import available_threads
from clip4str.core.errors import first_line
from clip4str.kernels.options import options
from clip4str.kernels.shared.ahead import compile_ahead, meta

from .graphs import bucket_for, is_out_of_memory, release_memory
from .program import Program
from .runner import GraphRunner

MOST_PROCESSES = 16  # each imports torch: 0.3 GB


class Prepared:
    """compile: makes sure of a bucket's kernels; None where nothing is compiled, as on a CPU."""

    def __init__(self, compile: Callable[[int], object] | None) -> None:
        self._compile, self._lock = compile, threading.Lock()
        self._done: list[int] = []

    def __call__(self, rows: int) -> None:
        """Raises what `compile` does; the next call then compiles again."""
        bucket = bucket_for(rows)
        if self._compile is None or bucket in self._done:
            return
        with self._lock:
            if bucket not in self._done:
                self._compile(bucket)
                self._done = sorted((*self._done, bucket))

    def bucket(self, rows: int) -> int:
        """The smallest that holds `rows` and needs no compiler: some rows more cost less than a compilation."""
        return next((done for done in self._done if done >= rows), bucket_for(rows))


@torch.inference_mode()
def launch_once(program: Program, rows: int) -> None:
    """Everything that graphs of that many rows will hold, over buffers of its own. Where they do not fit, nothing is
    done: then the graphs do not, either, and whoever captures them deals with it."""
    try:
        GraphRunner(program, rows).launch(rows)
        if program.weights.device.type == "cuda":
            torch.cuda.current_stream(program.weights.device).synchronize()
        return
    except Exception as error:
        if not is_out_of_memory(error):
            raise
    release_memory()


def launch_buckets(program: Program, buckets: Sequence[int]) -> None:
    """The same for several, as compile_ahead's processes do."""
    runner = GraphRunner(program, max(buckets))
    for rows in buckets:
        runner.launch(rows)


def compile_in_processes(program: Program, buckets: Sequence[int], capability: tuple[int, int]) -> None:
    """Compiles what these buckets launch into Triton's cache, on all cores; once for each program, buckets, GPU
    and options. Warns if it cannot be: kernels are then compiled where they are launched."""
    processes = min(MOST_PROCESSES, available_threads())
    if processes < 2:
        return
    there = meta(program)
    stamp = _stamp(there, buckets, capability)
    if stamp.exists():
        return
    try:
        problems = compile_ahead(launch_buckets, (there, list(buckets)), capability, processes)
    except OSError as error:
        problems = [first_line(error)]
    if problems:
        warnings.warn(f"kernels are compiled one by one: {problems[0]}", RuntimeWarning, stacklevel=6)
        return
    with suppress(OSError):
        stamp.parent.mkdir(parents=True, exist_ok=True)
        stamp.touch()


def _stamp(program: Any, buckets: Sequence[int], capability: tuple[int, int]) -> Path:
    """Lies in Triton's cache, and goes with it. Only a promise: a kernel that is not there is compiled."""
    import triton
    from triton import knobs

    text = repr((triton.__version__, program, list(buckets), capability, options(), _sources()))
    return Path(knobs.cache.dir) / f"clip4str-{hashlib.sha256(text.encode()).hexdigest()[:32]}"


def _sources() -> str:
    from clip4str import kernels

    files = sorted(Path(str(kernels.__file__)).parent.glob("**/*.py"))
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()
