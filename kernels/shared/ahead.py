"""Kernels compiled into Triton's cache on disk before anything launches them, in processes of their own.

There Triton is given a device that is none, and tensors lie on torch's meta device: whatever launches kernels runs as
ever, each launch compiles, and nothing is launched. So it takes no GPU memory, no CUDA context and no GPU at all, and
what it leaves is what a process on such a GPU looks for.
"""

from __future__ import annotations

import hashlib
import os
import pickle
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from clip4str.core.errors import first_line

from ..options import options, using

SECONDS = 600.0
_WORKER = "import sys; sys.path[:] = {path!r}; from clip4str.kernels.shared.ahead import worker; worker()"


def compile_ahead(
    launch: Callable[..., object],
    arguments: Sequence[Any],
    capability: tuple[int, int],
    processes: int,
    seconds: float = SECONDS,
) -> list[str]:
    """Compiles what launch(*arguments) launches, shared among the processes. Returns why any of them failed.

    launch: a function that a module has; arguments: picklable, their tensors on the meta device. What `options()` say
    here holds there. Processes that are not done after `seconds` are ended; what they compiled is kept.
    """
    task = pickle.dumps((launch, tuple(arguments), capability, processes, options()))
    environment = {**os.environ, "TRITON_INTERPRET": "0", "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", _WORKER.format(path=sys.path)]
    workers = [
        subprocess.Popen([*command, str(i)], env=environment, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL,
                         stderr=subprocess.PIPE) for i in range(processes)
    ]  # fmt: skip
    deadline, problems = time.monotonic() + seconds, set()
    try:
        for worker in workers:
            assert worker.stdin is not None
            try:
                worker.stdin.write(task)
                worker.stdin.close()
            except BrokenPipeError:  # what it died of is on its stderr
                pass
            worker.stdin = None
        for worker in workers:
            try:
                _, said = worker.communicate(timeout=max(0.1, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                problems.add(f"not done after {seconds:.0f} s")
                break
            if worker.returncode:
                lines = said.decode(errors="replace").strip().splitlines()
                problems.add(lines[-1] if lines else f"exit code {worker.returncode}")
    finally:
        for worker in workers:
            if worker.poll() is None:
                worker.kill()
            worker.wait()
            if worker.stderr is not None:
                worker.stderr.close()
    return sorted(problems)


def meta(value: Any) -> Any:
    """The same with tensors and devices replaced by the meta device's: shapes, strides and types alone. Looks into
    dataclasses, tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        return value.detach().to("meta")
    if isinstance(value, torch.device):
        return torch.device("meta")
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{f.name: meta(getattr(value, f.name)) for f in fields(value) if f.init})
    if isinstance(value, tuple):
        parts = [meta(part) for part in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if isinstance(value, list):
        return [meta(part) for part in value]
    return {name: meta(part) for name, part in value.items()} if isinstance(value, dict) else value


def worker() -> None:
    """One process's part: the kernels whose key falls to it."""
    number = int(sys.argv[1])
    launch, arguments, capability, processes, chosen = pickle.load(sys.stdin.buffer)
    launch_nothing(capability, lambda key: _shard(key, processes) != number)
    try:
        with using(chosen):
            launch(*arguments)
    except Exception as error:
        sys.exit(f"{type(error).__name__}: {first_line(error, 300)}")


def launch_nothing(capability: tuple[int, int], skip: Callable[[str], bool]) -> None:
    """From now on, in this whole process, what is launched on the meta device is compiled for such a GPU, but for
    kernels whose key `skip` says True to."""
    from .launch import compiles_for

    compiles_for(capability)
    import triton
    from triton import knobs
    from triton.runtime.driver import driver

    driver.set_active(_NoDevice(triton.backends.compiler.GPUTarget("cuda", 10 * capability[0] + capability[1], 32)))
    knobs.runtime.jit_cache_hook = lambda key, repr, **_: skip(f"{repr} {key}")


def _shard(key: str, processes: int) -> int:
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % processes


class _NoDevice:
    """In the place of Triton's driver of a GPU: says which one is compiled for, and launches nothing."""

    def __init__(self, target: Any) -> None:
        self.target = target
        self.utils = self

    def get_current_target(self) -> Any:
        return self.target

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": 1 << 30}

    def load_binary(self, *_: Any) -> tuple[Any, ...]:
        return object(), object(), 0, 0, 1024

    def launcher_cls(self, source: Any, metadata: Any) -> Callable[..., None]:
        return lambda *_: None
