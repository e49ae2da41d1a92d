"""crop_resize ahead of time, for a network's input size. Channel order and YUV matrix are arguments at run time."""

from __future__ import annotations

from clip4str.core.normalization import NORMALIZATION

from ..shared.variants import Network, Variant
from .config import configuration
from .kernel import constants, crop_resize_kernel
from .tile import options


def variants(network: Network, dtype: str, capability: tuple[int, int]) -> list[Variant]:
    """Packed pixels and NV12, each normalisation (numbered in the order of NORMALIZATION), in the dtype and float32.

    An engine's input is float32, whatever precision it computes in.
    """
    pairs = [(layout, name) for layout in ("rgb", "nv12") for name in NORMALIZATION]
    kinds = dict.fromkeys((dtype, "fp32"))
    return [_variant(network.image_size, layout, name, kind, capability) for kind in kinds for layout, name in pairs]


def _variant(
    size: tuple[int, int], layout: str, normalization: str, dtype: str, capability: tuple[int, int]
) -> Variant:
    config = configuration(*size, capability)
    numbers = ("frame_height", "frame_width", "stride", "chroma_stride", "swap", "conversion")
    types = {"frame": "*u8", "chroma": "*u8", "quads": "*fp32", "out": f"*{dtype}", **dict.fromkeys(numbers, "i32")}
    absent = () if layout == "nv12" else ("chroma",)
    return Variant(
        launch="crop_resize.crop_resize",
        kernel=crop_resize_kernel,
        types={name: kind for name, kind in types.items() if name not in absent},
        constexprs={**constants(size, layout, normalization, config), **dict.fromkeys(absent, None)},
        where={
            "height": size[0],
            "width": size[1],
            "nv12": int(layout == "nv12"),
            "normalization": list(NORMALIZATION).index(normalization),
            "out_float32": int(dtype == "fp32"),
        },
        grid=(f"n * {-(-size[0] // config.block_y)} * {-(-size[1] // config.block_x)}",),
        num_warps=config.warps,
        num_stages=1,
        aligned=("quads", "out"),
        options=options(config),
    )
