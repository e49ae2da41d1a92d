"""Which of torch's attention kernels is the quickest in the towers, beside the one that runs there."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import torch
from torch.nn.attention import SDPBackend, sdpa_kernel

from clip4str.benchmarks.gpu.device import Gpu, spread
from clip4str.benchmarks.gpu.supervisor import Reporter
from clip4str.model.sizes import SIZES
from clip4str.runtime.backends.pytorch import attention as towers

BATCHES = (1, 64)
_CALLS = 20  # within a graph


def attention(gpu: Gpu, report: Reporter, network: str = "base16") -> None:
    """report.values: the kernel that runs; times by tower and batch in microseconds a call, "cudnn" where torch has
    it; the quickest. Where another is quicker by a tenth, attention.KERNELS' order is to be thought over."""
    c = SIZES[network]
    shapes = {"image": (c.image_heads, c.memory_tokens), "text": (c.text_heads, c.context)}
    report.values |= {"runs": towers.kernel_for(gpu.device.type, gpu.half, 64), "times": {}}
    for batch in BATCHES[:1] if gpu.kind == "cpu" else BATCHES:
        for tower, (heads, length) in shapes.items():
            name = f"{tower}, batch {batch}"
            qkv = torch.randn(3, batch, heads, length, 64, device=gpu.device).to(gpu.half)
            report.attempt(name, gpu.least(1), _times, gpu, report, name, qkv, tower == "text")
    gpu.free()


def _times(gpu: Gpu, report: Reporter, name: str, qkv: torch.Tensor, causal: bool) -> None:
    q, k, v = qkv
    found: dict[str, Any] = {}
    for kernel in towers.KERNELS:
        towers.chosen = kernel
        try:
            with suppress(Exception):  # not every build has every one
                found[kernel] = _microseconds(gpu, lambda: towers.attention(q, k, v, causal))
        finally:
            towers.chosen = None
    if hasattr(SDPBackend, "CUDNN_ATTENTION") and gpu.kind != "cpu":
        with suppress(Exception), sdpa_kernel(SDPBackend.CUDNN_ATTENTION):
            found["cudnn"] = _microseconds(gpu, lambda: torch.nn.functional.scaled_dot_product_attention(
                q, k, v, is_causal=causal))  # fmt: skip
    report.values["times"][name] = found
    report.values.setdefault("quickest", {})[name] = min(found, key=found.__getitem__)


def _microseconds(gpu: Gpu, call: Any) -> float:
    def many() -> None:
        for _ in range(_CALLS):
            call()

    return spread(gpu.seconds(gpu.graph(many), 20, limit=0.3, inner=_CALLS))["median"]
