"""Times towers' attention over few tokens and its projection on a GPU: `python kernels/short_attention/bench.py`."""

from __future__ import annotations

import sys

import torch
import torch.nn.functional as F
from torch import Tensor

from clip4str.kernels.shared.bench import Arguments, Case, run_cases, seeded
from clip4str.kernels.shared.variants import NETWORKS, Network
from clip4str.kernels.short_attention import candidates, short_attention
from clip4str.kernels.short_attention.aot import HEAD_DIM

BATCHES = (1, 8)


def cases(capability: tuple[int, int] = (9, 0)) -> list[Case]:
    """Captions of the bundled network and of B/16, and the bundled network's images."""
    small, base = NETWORKS["small"], NETWORKS["base16"]
    found = []
    for batch in BATCHES:
        for network in (small, base):
            found.append(_case(network, "captions", network.text, network.text_width, True, batch, capability))
        found.append(_case(small, "images", small.memory, small.image_width, False, batch, capability))
    return found


def _case(
    network: Network, what: str, length: int, width: int, causal: bool, batch: int, capability: tuple[int, int]
) -> Case:
    heads = width // HEAD_DIM

    def make(device: torch.device, dtype: torch.dtype) -> Arguments:
        generator = seeded(device)

        def draw(*shape: int, scale: float = 1.0) -> Tensor:
            return scale * torch.randn(*shape, device=device, dtype=dtype, generator=generator)

        given = {"qkv": draw(batch, length, 3 * width), "residual": draw(batch, length, width), "bias": draw(width)}
        return {**given, "weight": draw(width, width, scale=width**-0.5), "heads": heads, "causal": causal}

    rows = batch * length
    return Case(
        name=f"{network.name} {what} batch {batch}",
        function=short_attention,
        make=make,
        bytes=2 * (5 * rows * width + width * width),
        flops=4 * rows * length * width + 2 * rows * width * width,
        configs=candidates(batch, length, heads, HEAD_DIM, torch.float16, capability),
        baseline=library,
    )


def library(qkv: Tensor, residual: Tensor, weight: Tensor, bias: Tensor, heads: int, causal: bool) -> Tensor:
    q, k, v = qkv.unflatten(-1, (3, heads, -1)).permute(2, 0, 3, 1, 4)
    attended = F.scaled_dot_product_attention(q, k, v, is_causal=causal).transpose(1, 2).flatten(2)
    return torch.addmm(bias, attended.flatten(0, 1), weight.t()).view_as(residual).add_(residual)


if __name__ == "__main__":
    sys.exit(run_cases("kernels/short_attention/bench.py", cases()))
