"""The collapse kernel ahead of time. It is not in the C library (see OPERATORS in kernels/aot.py), whose callers have
the frames on the host and collapse them there."""

from __future__ import annotations

from ..shared.variants import Network, Variant, ranges
from .config import configuration
from .kernel import collapse_kernel, constants

FRAMES = 32  # of the bundled network; 42 of the published ones


def variants(network: Network, dtype: str, capability: tuple[int, int], frames: int = FRAMES) -> list[Variant]:
    """One for each configuration."""
    return [
        Variant(
            launch="collapse.collapse",
            kernel=collapse_kernel,
            types={"logits": f"*{dtype}", "out": "*i32"},
            constexprs=constants(frames, network.classes, network.steps, config),
            where={"n": n},
            grid=("n",),
            num_warps=config.warps,
            num_stages=1,
            matrix=False,
        )
        for n, config in ranges(configuration)
    ]
