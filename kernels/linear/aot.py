"""The linear kernel ahead of time: the decoder's four layers, each for few, some and many rows.

Beside it, not in the library: products of towers, to see registers and spills (kernels/resources.py).
"""

from __future__ import annotations

from ..shared.tiles import DEPENDENT_CAPABILITY
from ..shared.variants import ACTIVATIONS, MOST, Network, Variant, torch_dtype
from .config import LinearConfig, configuration, descriptor_configuration, split_configuration
from .descriptors import descriptor_blocks, descriptor_constants, descriptor_kernel
from .kernel import linear_constants, linear_kernel
from .split import split_constants, split_kernel

ROWS = (32, 256, 4096)  # tiles are chosen for this many rows: one word, up to 9 words, more


def variants(network: Network, dtype: str, capability: tuple[int, int]) -> list[Variant]:
    """Query projection, output projection, and the MLP's two layers, as kernels/decode_pass calls them."""
    d, hidden = network.d, network.mlp
    layers = (
        (d, d, True, "none", False),
        (d, d, False, "none", True),
        (d, hidden, True, "gelu", False),
        (hidden, d, False, "none", True),
    )
    found = []
    for K, F, normalize, activation, residual in layers:
        for least, most in zip((1, *(r + 1 for r in ROWS)), (*ROWS[:-1], MOST)):
            config = configuration(min(most, ROWS[-1]), K, F, torch_dtype(dtype), capability)
            early = capability >= DEPENDENT_CAPABILITY
            found.append(_variant(K, F, normalize, activation, residual, dtype, config, early, (least, most)))
    return found


def _variant(
    K: int,
    F: int,
    normalize: bool,
    activation: str,
    residual: bool,
    dtype: str,
    config: LinearConfig,
    early: bool,
    rows: tuple[int, int],
) -> Variant:
    pointers = ("x", "weight", "bias", "out", *(("residual",) if residual else ()))
    strides = ("stride_x", "stride_residual", "stride_out")
    constants: dict[str, object] = dict(
        linear_constants(K, F, normalize, activation, torch_dtype(dtype), config, early)
    )
    if not residual:
        constants["residual"] = None
    return Variant(
        launch="linear.linear",
        kernel=linear_kernel,
        types={**dict.fromkeys(pointers, f"*{dtype}"), **dict.fromkeys(("rows", *strides), "i32")},
        constexprs=constants,
        where={
            "rows": rows,
            "K": K,
            "F": F,
            "normalize": int(normalize),
            "activation": ACTIVATIONS.index(activation),
            "has_bias": 1,
            "has_residual": int(residual),
        },
        grid=(f"ceil(rows / {config.block_m}) * {-(-F // config.block_f)}",),
        num_warps=config.warps,
        num_stages=config.stages,
        aligned=(*pointers, *strides),
    )


def many_rows_variant(network: Network, dtype: str, capability: tuple[int, int]) -> Variant:
    """`up` of the image tower over 64 words' rows, which are normalised before."""
    K, F, rows = network.image_width, 4 * network.image_width, 64 * network.memory
    config = configuration(rows, K, F, torch_dtype(dtype), capability)
    early = capability >= DEPENDENT_CAPABILITY
    return _variant(K, F, False, "quick_gelu", False, dtype, config, early, (rows, rows))


def descriptor_variants(network: Network, dtype: str, capability: tuple[int, int]) -> list[Variant]:
    """The same with descriptors, where there are any."""
    K, F, rows = network.image_width, 4 * network.image_width, 64 * network.memory
    config = descriptor_configuration(rows, K, F, torch_dtype(dtype), capability)
    if config is None:
        return []
    blocks = descriptor_blocks(config).items()
    return [
        Variant(
            launch="linear.descriptors",
            kernel=descriptor_kernel,
            types={
                **{name: f"tensordesc<{dtype}[{high},{wide}]>" for name, (high, wide) in blocks},
                "bias": f"*{dtype}",
                "rows": "i32",
            },
            constexprs=descriptor_constants(K, F, "quick_gelu", torch_dtype(dtype), config, True),
            where={"rows": (rows, rows), "K": K, "F": F},
            grid=(f"{config.tiles(rows, F)}",),
            num_warps=config.warps,
            num_stages=config.stages,
        )
    ]


def split_variants(network: Network, dtype: str, capability: tuple[int, int]) -> list[Variant]:
    """`down` of the image tower over one word's rows, where K is split there."""
    K, F = 4 * network.image_width, network.image_width
    config = split_configuration(network.memory, K, F, torch_dtype(dtype), capability)
    if config is None:
        return []
    pointers, strides = ("x", "weight", "bias", "residual", "out"), ("stride_x", "stride_residual", "stride_out")
    numbers = dict.fromkeys(("rows", *strides), "i32")
    return [
        Variant(
            launch="linear.split",
            kernel=split_kernel,
            types={**dict.fromkeys(pointers, f"*{dtype}"), "partial": "*fp32", "counters": "*i32", **numbers},
            constexprs=split_constants(K, F, "none", torch_dtype(dtype), config, capability >= DEPENDENT_CAPABILITY),
            where={"rows": (17, network.memory), "K": K, "F": F},
            grid=(f"ceil(rows / {config.block_m}) * {-(-F // config.block_f) * config.parts}",),
            num_warps=config.warps,
            num_stages=config.stages,
            aligned=(*pointers, "partial", *strides),
        )
    ]
