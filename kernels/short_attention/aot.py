"""The short attention ahead of time, to see its registers and instructions: the library has no towers."""

from __future__ import annotations

from ..shared.tiles import DEPENDENT_CAPABILITY
from ..shared.variants import Network, Variant, torch_dtype
from .config import configuration
from .kernel import short_attention_constants, short_attention_kernel

HEAD_DIM = 64  # of CLIP's towers


def variants(network: Network, dtype: str, capability: tuple[int, int]) -> list[Variant]:
    """Of one sample and of four: captions, and images of few tokens."""
    towers = [(network.text, network.text_width, True)]
    if network.name == "small":
        towers.append((network.memory, network.image_width, False))
    return [_variant(length, width, causal, n, dtype, capability) for length, width, causal in towers for n in (1, 4)]


def _variant(length: int, width: int, causal: bool, n: int, dtype: str, capability: tuple[int, int]) -> Variant:
    config = configuration(n, length, width // HEAD_DIM, HEAD_DIM, torch_dtype(dtype), capability)
    early = capability >= DEPENDENT_CAPABILITY
    pointers = ("qkv", "weight", "bias", "residual", "out")
    return Variant(
        launch="short_attention.short_attention",
        kernel=short_attention_kernel,
        types=dict.fromkeys(pointers, f"*{dtype}"),
        constexprs=short_attention_constants(
            length, width // HEAD_DIM, HEAD_DIM, causal, torch_dtype(dtype), config, early
        ),
        where={"n": n},
        grid=(f"n * {-(-width // config.block_f)}",),
        num_warps=config.warps,
        num_stages=config.stages,
        aligned=pointers,
    )
