"""The GPU as the suite uses it: timer, graph, profiler. Every CUDA call of the suite is in `Gpu`; `StandIn` has the
same interface on a CPU, so that everything else runs, and is tested, without a GPU.
"""

from __future__ import annotations

import gc
import importlib
import importlib.util
import statistics
import subprocess
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

Call = Callable[[], Any]
Span = tuple[str, float, float]  # name, start and length in microseconds


def spread(seconds: Sequence[float]) -> dict[str, float]:
    """Median, quartiles and fastest in microseconds."""
    us = sorted(1e6 * s for s in seconds)
    first, _, third = statistics.quantiles(us, n=4, method="inclusive") if len(us) > 1 else (us[0],) * 3
    values = {"median": statistics.median(us), "quartile_1": first, "quartile_3": third, "fastest": us[0]}
    return {**{name: round(value, 3) for name, value in values.items()}, "repetitions": len(us)}


class Gpu:
    """The current CUDA device. Clocks and power limits are read, never set."""

    kind = "cuda"

    def __init__(self) -> None:
        self.device = torch.device("cuda", torch.cuda.current_device())
        self.properties = torch.cuda.get_device_properties(self.device)
        self.l2_bytes = int(getattr(self.properties, "L2_cache_size", 0) or 50e6)
        self.half = torch.float16
        self.capability = self.properties.major, self.properties.minor

    def least(self, seconds: float) -> float:
        """Seconds that must be left for work to begin."""
        return seconds

    def info(self) -> dict[str, Any]:
        p = self.properties
        import triton

        return {
            "name": p.name,
            "capability": f"{p.major}.{p.minor}",
            "multiprocessors": p.multi_processor_count,
            "memory_gib": round(p.total_memory / 2**30, 1),
            "l2_mb": round(self.l2_bytes / 1e6, 1),
            "cuda": torch.version.cuda,
            "torch": torch.__version__,
            "triton": triton.__version__,
            **_driver(),
        }

    def sync(self) -> None:
        torch.cuda.synchronize()

    def free(self) -> None:
        """Free cached memory, also that of graphs that are no longer used."""
        gc.collect()
        self.sync()
        torch.cuda.empty_cache()

    def memory_left(self) -> int:
        return torch.cuda.mem_get_info()[0]

    def graph(self, call: Call, warmups: int = 2) -> Call:
        """Captures `call` in a CUDA graph; returns a function that replays it. Raises what capture raises."""
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(warmups):
                call()
        torch.cuda.current_stream().wait_stream(stream)
        self.sync()
        graph = torch.cuda.CUDAGraph()
        kept = []  # outputs live in the graph's memory pool: they must outlive its replays
        with torch.cuda.graph(graph, capture_error_mode="thread_local"):
            kept.append(call())

        def replay() -> Any:
            graph.replay()
            return kept[0]

        return replay

    def seconds(self, call: Call, repeats: int, limit: float = 5.0, inner: int = 1) -> list[float]:
        """Device time of single calls by events, at most `repeats` of them and `limit` seconds (at least two).

        inner: how many equal pieces of work one call does; the seconds are of one piece.
        """
        call()
        self.sync()
        taken: list[float] = []
        deadline = time.monotonic() + limit
        while len(taken) < repeats and (len(taken) < 2 or time.monotonic() < deadline):
            events = [torch.cuda.Event(enable_timing=True) for _ in range(2)]
            events[0].record()
            call()
            events[1].record()
            events[1].synchronize()
            taken.append(events[0].elapsed_time(events[1]) / 1000 / inner)
        return taken

    def kernels(self, call: Call) -> int | None:
        """Number of kernels one call launches; None if the profiler saw none, for lack of permission perhaps."""
        spans = self.trace(call)
        return sum(not name.lower().startswith(("memcpy", "memset")) for name, _, _ in spans) or None

    def trace(self, call: Call) -> list[Span]:
        """What runs on the device in one call after another, which is not looked at; copies too."""
        from torch.profiler import ProfilerActivity, profile

        call()
        self.sync()
        kinds = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if self.kind == "cuda" else [])]
        with profile(activities=kinds) as seen:
            call()
            self.sync()
        return [
            (event.name, event.time_range.start, event.time_range.elapsed_us())
            for event in seen.events()
            if self._on_device(event)
        ]

    def _on_device(self, event: Any) -> bool:
        return str(event.device_type).endswith("CUDA") and not event.name.lower().startswith(("## call", "torch-"))

    def alive(self) -> bool:
        """False after an error that the process cannot recover from, such as an illegal address."""
        try:
            self.sync()
            return bool(torch.ones(1, device=self.device).item() == 1)
        except Exception:
            return False


class StandIn(Gpu):
    """A CPU in the GPU's place: wall-clock times, no graphs, no kernels counted."""

    kind = "cpu"

    def __init__(self) -> None:
        self.device, self.l2_bytes = torch.device("cpu"), 100_000
        self.half, self.capability = torch.bfloat16, (9, 0)

    def least(self, seconds: float) -> float:
        return 0.0

    def info(self) -> dict[str, Any]:
        found: dict[str, Any] = {"name": "dry run on a CPU", "multiprocessors": 1, "torch": torch.__version__}
        if importlib.util.find_spec("triton") is not None:
            found["triton"] = importlib.import_module("triton").__version__
        return found

    def sync(self) -> None:
        pass

    def free(self) -> None:
        gc.collect()

    def memory_left(self) -> int:
        return 10**9

    def graph(self, call: Call, warmups: int = 2) -> Call:
        return call

    def seconds(self, call: Call, repeats: int, limit: float = 5.0, inner: int = 1) -> list[float]:
        taken = []
        for _ in range(min(2, repeats)):
            began = time.perf_counter()
            call()
            taken.append((time.perf_counter() - began) / inner)
        return taken

    def kernels(self, call: Call) -> int | None:
        return None

    def _on_device(self, event: Any) -> bool:
        """The operations that no other one called."""
        return event.cpu_parent is None

    def alive(self) -> bool:
        return True


def open_device(dry_run: bool) -> Gpu:
    return StandIn() if dry_run else Gpu()


def _driver() -> dict[str, Any]:
    """Driver and clocks as found, from nvidia-smi where there is one."""
    fields = ("driver_version", "clocks.sm", "clocks.max.sm", "clocks.mem", "power.limit", "temperature.gpu")
    query = ["nvidia-smi", f"--query-gpu={','.join(fields)}", "--format=csv,noheader"]
    try:
        out = subprocess.run(query, capture_output=True, text=True, timeout=20, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return {"driver_version": "unknown"}
    return dict(zip(fields, (value.strip() for value in out.splitlines()[0].split(","))))
