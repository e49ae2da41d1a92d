"""The collapse kernels ahead of time. Users of the C library have an engine's frames, whose argmax is done: theirs is
the one over ids. The one over logits is the torch backend's, compiled by tests alone."""

from __future__ import annotations

from ..shared.variants import Network, Variant, ranges
from .config import FRAMES_AT_ONCE, LEAST_STEPS, configuration
from .kernel import collapse_frames_kernel, collapse_kernel, constants

FRAMES = 32  # of the bundled network; 42 of the published ones


def variants(network: Network, dtype: str, capability: tuple[int, int]) -> list[Variant]:
    """Over ids, the same for every network: for few frames and for many."""
    least, found = 1, []
    for most, warps in FRAMES_AT_ONCE:
        found.append(_of_frames(least, most, warps))
        least = most + 1
    return found


def _of_frames(least: int, most: int, warps: int) -> Variant:
    return Variant(
        launch="collapse.frames",
        kernel=collapse_frames_kernel,
        types={**dict.fromkeys(("ids", "out"), "*i32"), **dict.fromkeys(("frames", "classes", "steps"), "i32")},
        constexprs={"BLOCK_F": most, "BLOCK_T": LEAST_STEPS},
        where={"frames": (least, most)},
        grid=("n",),
        num_warps=warps,
        num_stages=1,
        aligned=(),
        matrix=False,
    )


def logits_variants(network: Network, dtype: str, capability: tuple[int, int], frames: int = FRAMES) -> list[Variant]:
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
