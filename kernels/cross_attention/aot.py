"""The attention kernel ahead of time: with and without text memory, queries projected inside (few words) or before."""

from __future__ import annotations

from ..shared.tiles import DEPENDENT_CAPABILITY
from ..shared.variants import Network, Variant, Where, ranges, torch_dtype
from .config import configuration
from .kernel import STRIDES, attend_constants, attend_kernel

ALIGN = 8  # strides are passed in units of 8 elements
SAMPLES = 256


def variants(network: Network, dtype: str, capability: tuple[int, int]) -> list[Variant]:
    heads, e, M = network.heads, network.head_dim, network.memory
    found, early = [], capability >= DEPENDENT_CAPABILITY
    for text in (0, network.text):
        for samples, config in ranges(lambda n: configuration(n, heads, e, M, torch_dtype(dtype), capability), SAMPLES):
            weights = ("weight", "bias") if config.project_inside else ()
            pointers = ("x", "memory", "out", *weights, *(("text",) if text else ()))
            constants: dict[str, object] = dict(
                attend_constants(network.steps, heads, e, M, text, ALIGN, torch_dtype(dtype), config, early)
            )
            constants.update({name: None for name in ("text", "weight", "bias") if name not in pointers})
            inside = int(config.project_inside)
            where: Where = {"n": samples, "d": network.d, "heads": heads, "M": M, "X": text, "has_weight": inside}
            steps = (1, 16) if network.steps <= 16 else (17, 32)
            numbers = ("T", "x_sample", "x_row", *STRIDES)
            found.append(
                Variant(
                    launch="cross_attention.attend",
                    kernel=attend_kernel,
                    types={**dict.fromkeys(pointers, f"*{dtype}"), **dict.fromkeys(numbers, "i32")},
                    constexprs=constants,
                    where={**where, "T": steps},
                    grid=(f"n * {heads}",),
                    num_warps=config.warps,
                    num_stages=config.stages,
                )
            )
    return found
