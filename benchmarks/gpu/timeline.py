"""Where one batch's time goes on the device: kernels and the gaps between them, which attention ran, and the large
product by Triton and by cuBLAS."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch

from clip4str.benchmarks.gpu.device import Gpu, Span, spread
from clip4str.benchmarks.gpu.end_to_end import Graphed, Networks
from clip4str.benchmarks.gpu.networks import random_pixels
from clip4str.benchmarks.gpu.supervisor import Reporter
from clip4str.model import Config

PRODUCT = 12608, 3072, 768  # rows of 64 images of B/16, features, width: the tower's `up`
_ATTENTION = re.compile(r"flash|fmha|sdpa|attention|softmax", re.IGNORECASE)
_OURS = re.compile(r"attend_kernel|self_attention_kernel")  # of the decoders
_LISTED = 24


def timeline(gpu: Gpu, report: Reporter, config: Config, batches: Sequence[int]) -> None:
    """report.values: by batch what `shares` says; then the product's times."""
    networks = Networks(gpu, config)
    for batch in batches:
        report.attempt(f"batch {batch}", gpu.least(3), _batch, gpu, report, networks, batch)
        gpu.free()
    report.attempt("product", gpu.least(3), _product, gpu, report)


def _batch(gpu: Gpu, report: Reporter, networks: Networks, batch: int) -> None:
    side = Graphed(gpu, networks, batch)
    pixels = random_pixels(networks.config, batch, gpu.device)
    spans = gpu.trace(lambda: side(pixels))
    if not spans:
        raise RuntimeError("the profiler saw nothing on the device: it may need permission to read counters")
    found = shares(spans)
    report.values[f"batch {batch}"] = found
    if gpu.kind == "cuda" and not found["attention"]:
        report.fail(f"batch {batch}", "no attention kernel is known by its name: look at the list")


def shares(spans: Sequence[Span]) -> dict[str, Any]:
    """spans: (name, start, length) in microseconds of all that ran. span_us: from the first's start to the last's end.
    busy_us: while at least one ran. gaps_us: the rest, and the longest of it. kernels: name -> how often, microseconds,
    the longest in all first. attention: names of the towers' attention."""
    ordered = sorted(spans, key=lambda span: span[1])
    busy, longest, end = 0.0, 0.0, ordered[0][1]
    for _, start, length in ordered:
        longest = max(longest, start - end)
        busy += max(0.0, start + length - max(start, end))
        end = max(end, start + length)
    total = end - ordered[0][1]
    kernels: dict[str, list[float]] = defaultdict(list)
    for name, _, length in ordered:
        kernels[name].append(length)
    rows = sorted(kernels.items(), key=lambda item: -sum(item[1]))
    return {
        "span_us": round(total, 2), "busy_us": round(busy, 2), "gaps_us": round(total - busy, 2),
        "longest_gap_us": round(longest, 2), "launches": len(ordered),
        "attention": sorted({name[:120] for name in kernels if _ATTENTION.search(name) and not _OURS.search(name)}),
        "kernels": [
            {"name": name[:120], "count": len(times), "us": round(sum(times), 2)} for name, times in rows[:_LISTED]
        ],
    }  # fmt: skip


def _product(gpu: Gpu, report: Reporter) -> None:
    """Both with what follows the product: bias and QuickGELU."""
    from clip4str.kernels.linear import linear

    rows, features, width = (n if gpu.kind == "cuda" else n // 64 for n in PRODUCT)
    x, weight = (torch.randn(n, width, device=gpu.device).to(gpu.half) / 27 for n in (rows, features))
    bias = torch.zeros(features, dtype=gpu.half, device=gpu.device)
    sides = {
        "triton": lambda: linear(x, weight, bias, activation="quick_gelu"),
        "cublas": lambda: linear(x, weight, bias, activation="quick_gelu", config="library"),
        "cublas_alone": lambda: torch.mm(x, weight.t()),
    }
    values = report.values["product"] = {"shape": [rows, features, width]}
    with torch.inference_mode():
        for name, side in sides.items():
            times = spread(gpu.seconds(gpu.graph(side, 1), 20))
            values[name] = {**times, "tflops": round(2 * rows * features * width / times["median"] / 1e6, 2)}
