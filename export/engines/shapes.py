"""The shapes of the stages' inputs and outputs as engines have them: all fixed but the number of images."""

from __future__ import annotations

from clip4str.runtime.bundle import OUTPUTS, Manifest, stage_shapes

Shapes = dict[str, tuple[int, ...]]


def input_shapes(manifest: Manifest, stage: str) -> Shapes:
    """{name: shape without the leading N}, with T = S = steps"""
    return {name: shape for name, shape in _fixed(manifest, stage).items() if name not in OUTPUTS[stage]}


def output_shapes(manifest: Manifest, stage: str) -> Shapes:
    """As input_shapes."""
    return {name: shape for name, shape in _fixed(manifest, stage).items() if name in OUTPUTS[stage]}


def _fixed(manifest: Manifest, stage: str) -> Shapes:
    steps = manifest.config["steps"]
    return {
        name: tuple(size if isinstance(size, int) else steps for size in shape[1:])
        for name, shape in stage_shapes(manifest)[stage].items()
    }
