"""The device's measured ceilings, bandwidth and matrix rate, that every figure is compared with."""

from __future__ import annotations

import os
import platform
import time

import torch

from clip4str.benchmarks.gpu.device import Gpu, spread
from clip4str.benchmarks.gpu.supervisor import Reporter


def environment(gpu: Gpu, report: Reporter) -> None:
    report.values.update(gpu.info())
    report.values |= {"python": platform.python_version(), "host_cores": os.cpu_count(), "machine": platform.machine()}
    report.values["float32_products"] = torch.get_float32_matmul_precision()  # "highest": no TF32
    report.values["tf32_override"] = os.environ.get("NVIDIA_TF32_OVERRIDE")
    if hasattr(os, "getloadavg"):
        report.values["load_before"] = round(os.getloadavg()[0], 2)


def ceilings(gpu: Gpu, report: Reporter) -> None:
    """copy_gbs: bytes read and written. *_tflops: an n x n x n product of random numbers. launch_us: a tiny kernel
    among many in a graph. host_us: one launched by eager torch."""
    small = gpu.kind == "cpu"
    report.attempt("copy bandwidth", 0, _copy, gpu, report, 2**20 if small else min(2**31, gpu.memory_left() // 8))
    for name, dtype in (("fp16", torch.float16), ("bf16", torch.bfloat16), ("fp32", torch.float32)):
        n = 64 if small else 8192 if dtype != torch.float32 else 4096
        report.attempt(f"matrix rate {name}", 0, _matrix, gpu, report, n, dtype, name)
    report.attempt("launches", 0, _launches, gpu, report)
    gpu.free()


def _copy(gpu: Gpu, report: Reporter, size: int) -> None:
    source = torch.randint(0, 255, (size,), dtype=torch.uint8, device=gpu.device)
    target = torch.empty_like(source)
    times = spread(gpu.seconds(lambda: target.copy_(source), 30))
    report.values |= {"copy_gbs": round(2 * size / times["median"] / 1e3, 1), "copy": times}


def _matrix(gpu: Gpu, report: Reporter, n: int, dtype: torch.dtype, name: str) -> None:
    a, b = (torch.randn(n, n, device=gpu.device, dtype=torch.float32).to(dtype) for _ in range(2))
    out = torch.empty_like(a)
    times = spread(gpu.seconds(lambda: torch.mm(a, b, out=out), 20))
    rate = 2 * n**3 / times["median"] / 1e6
    report.values |= {f"{name}_tflops": round(rate, 4), f"{name}_matrix": {"n": n, **times}}


def _launches(gpu: Gpu, report: Reporter, count: int = 200) -> None:
    x = torch.zeros(1024, device=gpu.device)

    def many() -> None:
        for _ in range(count):
            x.add_(1)

    times = spread(gpu.seconds(gpu.graph(many), 30, inner=count))
    many()
    gpu.sync()
    began = time.perf_counter()
    many()
    gpu.sync()
    report.values |= {"launch_us": times["median"], "host_us": round(1e6 * (time.perf_counter() - began) / count, 2)}
