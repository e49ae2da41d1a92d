"""resize ahead of time, for a network's input size: each normalisation, in the dtype and in float32."""

from __future__ import annotations

from clip4str.core.normalization import NORMALIZATION

from ..crop_resize.config import configuration
from ..crop_resize.tile import options, tile_constants
from ..shared.variants import Network, Variant
from .kernel import resize_kernel


def variants(network: Network, dtype: str, capability: tuple[int, int]) -> list[Variant]:
    """An engine's input is float32, whatever precision it computes in."""
    return [
        _variant(network.image_size, normalization, kind, capability)
        for kind in dict.fromkeys((dtype, "fp32"))
        for normalization in NORMALIZATION
    ]


def _variant(size: tuple[int, int], normalization: str, dtype: str, capability: tuple[int, int]) -> Variant:
    config = configuration(*size, capability)
    return Variant(
        launch="resize.resize",
        kernel=resize_kernel,
        types={"pixels": "*u8", "pictures": "*i32", "out": f"*{dtype}"},
        constexprs=tile_constants(size, normalization, config),
        where={
            "height": size[0],
            "width": size[1],
            "normalization": list(NORMALIZATION).index(normalization),
            "out_float32": int(dtype == "fp32"),
        },
        grid=(f"n * {-(-size[0] // config.block_y)} * {-(-size[1] // config.block_x)}",),
        num_warps=config.warps,
        num_stages=1,
        aligned=("pixels", "out"),
        options=options(config),
    )
