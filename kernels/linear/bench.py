"""Times the linear layer of decoder and image tower on a GPU: `python kernels/linear/bench.py`."""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from clip4str.kernels.linear import candidates, linear
from clip4str.kernels.shared.bench import BATCHES, SIZES, Arguments, Case, run_cases, seeded
from clip4str.kernels.shared.variants import NETWORKS, Network


def cases(capability: tuple[int, int] = (9, 0)) -> list[Case]:
    """Decoder layers over 26 rows a word, image tower layers over all its tokens."""
    found = []
    for network in (NETWORKS[name] for name in SIZES):
        d, hidden, width = network.d, network.mlp, network.image_width
        layers = (
            ("queries", network.steps, d, d, True, "none", False),
            ("decoder out", network.steps, d, d, False, "none", True),
            ("decoder up", network.steps, d, hidden, True, "gelu", False),
            ("decoder down", network.steps, hidden, d, False, "none", True),
            ("tower qkv", network.memory, width, 3 * width, True, "none", False),
            ("tower up", network.memory, width, 4 * width, True, "quick_gelu", False),
            ("tower down", network.memory, 4 * width, width, False, "none", True),
        )
        found += [_case(network, batch, capability, *layer) for layer in layers for batch in BATCHES]
    return found


def _case(
    network: Network,
    batch: int,
    capability: tuple[int, int],
    layer: str,
    tokens: int,
    K: int,
    F: int,
    normalize: bool,
    activation: str,
    residual: bool,
) -> Case:
    rows = batch * tokens
    tried = candidates(rows, K, F, torch.float16, capability)

    def make(device: torch.device, dtype: torch.dtype) -> Arguments:
        generator = seeded(device)

        def draw(*shape: int, scale: float = 1.0) -> Tensor:
            return scale * torch.randn(*shape, device=device, dtype=dtype, generator=generator)

        arguments: Arguments = {"x": draw(rows, K), "weight": draw(F, K, scale=K**-0.5), "bias": draw(F)}
        arguments |= {"normalize": normalize, "activation": activation}
        return arguments | {"residual": draw(rows, F) if residual else None}

    return Case(
        name=f"{network.name} {layer} batch {batch}",
        function=linear,
        make=make,
        bytes=2 * (rows * K + F * K + F + rows * F * (2 if residual else 1)),
        flops=2 * rows * K * F,
        configs=(None, "library", *(c for c in tried if not (c.descriptors and residual))),
        baseline=library_linear,
    )


def library_linear(
    x: Tensor, weight: Tensor, bias: Tensor, normalize: bool, activation: str, residual: Tensor | None
) -> Tensor:
    """What eager torch does."""
    functional = torch.nn.functional
    y = functional.linear(functional.layer_norm(x, x.shape[-1:]) if normalize else x, weight, bias)
    y = functional.gelu(y) if activation == "gelu" else y * torch.sigmoid(1.702 * y) if activation != "none" else y
    return y if residual is None else y + residual


if __name__ == "__main__":
    sys.exit(run_cases("kernels/linear/bench.py", cases()))
