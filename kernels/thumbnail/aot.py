"""thumbnail ahead of time: the same kernels for every network, as sizes are arguments at run time."""

from __future__ import annotations

from ..shared.variants import Network, Variant
from .config import configuration
from .kernel import NUMBERS, constants, thumbnail_kernel


def variants(network: Network, dtype: str, capability: tuple[int, int]) -> list[Variant]:
    """Packed pixels and NV12, grey and colour."""
    return [_variant(layout, colour) for layout in ("rgb", "nv12") for colour in (False, True)]


def _variant(layout: str, colour: bool) -> Variant:
    config = configuration()
    types = {"frame": "*u8", "chroma": "*u8", "out": "*u8", **dict.fromkeys(NUMBERS, "i32")}
    absent = () if layout == "nv12" and colour else ("chroma",)
    return Variant(
        launch="thumbnail.thumbnail",
        kernel=thumbnail_kernel,
        types={name: kind for name, kind in types.items() if name not in absent},
        constexprs={**constants(layout, colour, config), **dict.fromkeys(absent, None)},
        where={"nv12": int(layout == "nv12"), "colour": int(colour)},
        grid=("height", f"ceil(width / {config.block})"),
        num_warps=config.warps,
        num_stages=1,
        aligned=("out",),
        matrix=False,
    )
