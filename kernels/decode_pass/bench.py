"""Times a decoder pass and the two kernels at its ends on a GPU: `python kernels/decode_pass/bench.py`."""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from clip4str.kernels.decode_pass import Answer, DecoderWeights, decode_pass
from clip4str.kernels.decode_pass.config import HeadConfig, TableConfig, head_candidates, table_candidates
from clip4str.kernels.decode_pass.weights import MOST_STEPS
from clip4str.kernels.shared.bench import BATCHES, SIZES, Arguments, Case, run_cases, seeded
from clip4str.kernels.shared.variants import NETWORKS, Network


def cases(capability: tuple[int, int] = (9, 0)) -> list[Case]:
    """Causal passes over random characters, which read more different table rows than real words do."""
    found = []
    for network in (NETWORKS[name] for name in SIZES):
        for batch in BATCHES:
            found += [_self_attention_case(network, batch), _head_case(network, batch)]
            found += [_pass_case(network, batch, text) for text in (0, network.text)]
    return found


def random_weights(network: Network, device: torch.device, dtype: torch.dtype) -> DecoderWeights:
    """A decoder of a network's size; scores, values and logits have the scale of trained ones."""
    T, K, C, d, h, hidden = network.steps, network.tokens, network.classes, network.d, network.heads, network.mlp
    generator = seeded(device)

    def draw(*shape: int, scale: float = 1.0, kind: torch.dtype = dtype) -> Tensor:
        return scale * torch.randn(*shape, device=device, dtype=kind, generator=generator)

    return DecoderWeights(
        scores=draw(T, K, h, MOST_STEPS, kind=torch.float32),
        values=draw(T, K, h, d, scale=h**-0.5),
        base=draw(T, d, kind=torch.float32),
        query_weight=draw(d, d, scale=(d * network.head_dim) ** -0.5),
        query_bias=draw(d, scale=network.head_dim**-0.5),
        out_weight=draw(d, d, scale=d**-0.5),
        out_bias=draw(d),
        up_weight=draw(hidden, d, scale=d**-0.5),
        up_bias=draw(hidden),
        down_weight=draw(d, hidden, scale=hidden**-0.5),
        down_bias=draw(d),
        head_weight=draw(C, d, scale=3 * d**-0.5),
        head_bias=draw(C, kind=torch.float32),
    )


def random_ids(network: Network, batch: int, device: torch.device) -> Tensor:
    generator = seeded(device, 1)
    shape = (batch, network.steps)
    return torch.randint(0, network.classes, shape, device=device, dtype=torch.int32, generator=generator)


def self_attention(weights: DecoderWeights, ids: Tensor, config: TableConfig | None = None) -> Tensor:
    """The first kernel alone."""
    from clip4str.kernels.decode_pass import kernel

    return kernel.self_attention(weights, ids, "causal", None, len(ids), config)


def head(weights: DecoderWeights, x: Tensor, ids: Tensor, config: HeadConfig | None = None) -> Tensor:
    """The last kernel alone: its ids."""
    from clip4str.kernels.decode_pass import kernel

    out = Answer.empty(weights, len(x))
    kernel.head(weights, x, ids, None, out, config)
    return out.ids


def library_head(weights: DecoderWeights, x: Tensor, ids: Tensor) -> Tensor:
    """Ids and probabilities from torch's operators, without `last` and `unsettled`."""
    functional = torch.nn.functional
    logits = functional.linear(
        functional.layer_norm(x, x.shape[-1:]), weights.head_weight, weights.head_bias.to(x.dtype)
    )
    return logits.float().softmax(-1).max(-1).indices


def whole_pass(weights: DecoderWeights, ids: Tensor, memory: Tensor, text: Tensor | None) -> Tensor:
    return decode_pass(weights, ids, memory, text, mode="causal").ids


def _self_attention_case(network: Network, batch: int) -> Case:
    T, d, h = network.steps, network.d, network.heads

    def make(device: torch.device, dtype: torch.dtype) -> Arguments:
        return {"weights": random_weights(network, device, dtype), "ids": random_ids(network, batch, device)}

    return Case(
        name=f"{network.name} self-attention batch {batch}",
        function=self_attention,
        make=make,
        bytes=_table_bytes(network, batch) + 2 * batch * T * d,
        flops=2 * batch * T * T * h * d,
        configs=(None, *table_candidates(batch, d, torch.float16)),
    )


def _head_case(network: Network, batch: int) -> Case:
    T, d, C = network.steps, network.d, network.classes

    def make(device: torch.device, dtype: torch.dtype) -> Arguments:
        x = torch.randn(batch, T, d, device=device, dtype=dtype)
        return {
            "weights": random_weights(network, device, dtype), "x": x, "ids": random_ids(network, batch, device),
        }  # fmt: skip

    return Case(
        name=f"{network.name} head batch {batch}",
        function=head,
        make=make,
        bytes=2 * (batch * T * d + C * d) + 4 * C + batch * _answer_bytes(T),
        flops=2 * batch * T * d * C,
        configs=(None, *head_candidates(d, torch.float16)),
        baseline=library_head,
    )


def _pass_case(network: Network, batch: int, X: int) -> Case:
    d, h, e, T, M = network.d, network.heads, network.head_dim, network.steps, network.memory
    hidden, C = network.mlp, network.classes

    def make(device: torch.device, dtype: torch.dtype) -> Arguments:
        def key_value(length: int) -> Tensor:
            rows = torch.randn(batch, length, 2 * d, device=device, dtype=dtype)
            return rows.unflatten(-1, (2, h, e)).permute(0, 2, 3, 1, 4)

        return {
            "weights": random_weights(network, device, dtype), "ids": random_ids(network, batch, device),
            "memory": key_value(M), "text": key_value(X) if X else None,
        }  # fmt: skip

    matrices = 2 * d * d + 2 * d * hidden + d * C
    return Case(
        name=f"{network.name} pass, text {X}, batch {batch}",
        function=whole_pass,
        make=make,
        bytes=2 * (matrices + batch * 2 * (M + X) * d) + _table_bytes(network, batch) + batch * _answer_bytes(T),
        flops=2 * batch * T * (matrices + T * h * d + 2 * (M + X) * d),
    )


def _table_bytes(network: Network, batch: int) -> int:
    """Scores and values of every (position, token) once, however many words have it there; and the base."""
    rows = network.steps * min(batch, network.tokens)
    return rows * network.heads * (4 * MOST_STEPS + 2 * network.d) + 4 * network.steps * network.d


def _answer_bytes(steps: int) -> int:
    """Of one word: ids given, ids and probabilities found, last, unsettled."""
    return 4 * (3 * steps + 2)


if __name__ == "__main__":
    sys.exit(run_cases("kernels/decode_pass/bench.py", cases()))
