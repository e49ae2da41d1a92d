"""Times the cross-attention block on a GPU: `python kernels/cross_attention/bench.py`."""

from __future__ import annotations

import sys
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from clip4str.kernels.cross_attention import AttentionConfig, candidates, configuration, cross_attention
from clip4str.kernels.shared.bench import BATCHES, SIZES, Arguments, Case, run_cases, seeded
from clip4str.kernels.shared.variants import NETWORKS, Network


def cases(capability: tuple[int, int] = (9, 0)) -> list[Case]:
    """The whole block (queries, attention, output projection) without and with text memory, and the attention alone."""
    networks = [NETWORKS[name] for name in SIZES]
    sizes = [(network, batch, text) for network in networks for text in (0, network.text) for batch in BATCHES]
    return [make(*size, capability) for make in (_block_case, _attend_case) for size in sizes]


def draw_arguments(network: Network, batch: int, X: int, device: torch.device, dtype: torch.dtype) -> Arguments:
    """What cross_attention takes."""
    d, heads, e, T, M = network.d, network.heads, network.head_dim, network.steps, network.memory
    generator = seeded(device)

    def draw(*shape: int, scale: float = 1.0) -> Tensor:
        return scale * torch.randn(*shape, device=device, dtype=dtype, generator=generator)

    # as the image tower writes them: both decoders' keys and values side by side in one row
    memory = draw(batch, M, 4 * d)[..., : 2 * d].unflatten(-1, (2, heads, e)).permute(0, 2, 3, 1, 4)
    text = draw(batch, X, 2 * d).unflatten(-1, (2, heads, e)).permute(0, 2, 3, 1, 4) if X else None
    weights = {
        "query_weight": draw(d, d, scale=(d * e) ** -0.5),
        "query_bias": draw(d),
        "out_weight": draw(d, d, scale=d**-0.5),
        "out_bias": draw(d),
    }
    return {"x": draw(batch, T, d), "memory": memory, "text": text, **weights, "heads": heads}


def _block_case(network: Network, batch: int, X: int, capability: tuple[int, int]) -> Case:
    d, T, M = network.d, network.steps, network.memory
    words = 2 * (M + X) * d + 2 * T * d  # keys and values, x read, y written
    return Case(
        name=f"{network.name} text {X} batch {batch}",
        function=cross_attention,
        make=lambda device, dtype: draw_arguments(network, batch, X, device, dtype),
        bytes=2 * (batch * words + 2 * d * d + 2 * d),
        flops=batch * T * (4 * d * d + 4 * (M + X) * d),
        configs=candidates(batch, network.heads, network.head_dim, M, torch.float16, capability),
        baseline=library_cross_attention,
    )


def _attend_case(network: Network, batch: int, X: int, capability: tuple[int, int]) -> Case:
    d, T, M = network.d, network.steps, network.memory

    def make(device: torch.device, dtype: torch.dtype) -> Arguments:
        given = draw_arguments(network, batch, X, device, dtype)
        return {"q": given["x"], "memory": given["memory"], "text": given["text"]}

    found = candidates(batch, network.heads, network.head_dim, M, torch.float16, capability)
    return Case(
        name=f"{network.name} attend text {X} batch {batch}",
        function=attend_queries,
        make=make,
        bytes=2 * batch * (2 * (M + X) * d + 2 * T * d),
        flops=batch * T * 4 * (M + X) * d,
        configs=tuple(dict.fromkeys(replace(config, project_inside=False) for config in found)),
        baseline=library_attend_queries,
    )


def attend_queries(q: Tensor, memory: Tensor, text: Tensor | None, config: AttentionConfig | None = None) -> Tensor:
    """The attention kernel alone, over queries (N, T, d) that are projected already."""
    from clip4str.kernels.cross_attention.kernel import launch_attend

    if config is None:
        samples, _, heads, length, e = memory.shape
        config = configuration(samples, heads, e, length, q.dtype)
    out = torch.empty_like(q)
    launch_attend(q, memory, text, None, None, out, config)
    return out


def library_attend_queries(q: Tensor, memory: Tensor, text: Tensor | None) -> Tensor:
    """The same from torch's operators."""
    segments = memory if text is None else torch.cat((memory, text), 3)
    queries = q.unflatten(-1, (memory.shape[2], -1)).transpose(1, 2)
    attended = F.scaled_dot_product_attention(queries, segments[:, 0], segments[:, 1], scale=1.0)
    return attended.transpose(1, 2).flatten(2)


def library_cross_attention(
    x: Tensor,
    memory: Tensor,
    text: Tensor | None,
    query_weight: Tensor,
    query_bias: Tensor,
    out_weight: Tensor,
    out_bias: Tensor,
    heads: int,
) -> Tensor:
    """The same from torch's operators: separate projections, scaled_dot_product_attention on concatenated memory."""
    q = F.linear(F.layer_norm(x, x.shape[-1:]), query_weight, query_bias)
    return x + F.linear(library_attend_queries(q, memory, text), out_weight, out_bias)


if __name__ == "__main__":
    sys.exit(run_cases("kernels/cross_attention/bench.py", cases()))
