"""Times the collapse of drafts on a GPU: `python kernels/collapse/bench.py`."""

from __future__ import annotations

import sys

import torch
from torch import Tensor

from clip4str.kernels.collapse import candidates, collapse
from clip4str.kernels.collapse.reference import collapse_reference
from clip4str.kernels.shared.bench import BATCHES, Arguments, Case, run_cases, seeded
from clip4str.kernels.shared.variants import NETWORKS

FRAMES = {"small": 32, "base16": 42}


def cases(capability: tuple[int, int] = (9, 0)) -> list[Case]:
    """Frames of the bundled network, and of a draft head for a published one."""
    return [_case(network, frames, batch) for network, frames in FRAMES.items() for batch in BATCHES]


def _case(name: str, frames: int, batch: int) -> Case:
    network = NETWORKS[name]
    shape = batch, frames, network.classes

    def make(device: torch.device, dtype: torch.dtype) -> Arguments:
        generator = seeded(device)
        return {"logits": torch.randn(*shape, device=device, dtype=dtype, generator=generator), "steps": network.steps}

    def library(logits: Tensor, steps: int) -> Tensor:
        return collapse_reference(logits, steps)

    return Case(
        name=f"{name} batch {batch}",
        function=collapse,
        make=make,
        bytes=batch * (2 * frames * network.classes + 4 * network.steps),
        flops=0,
        configs=candidates(batch),
        baseline=library,
    )


if __name__ == "__main__":
    sys.exit(run_cases("kernels/collapse/bench.py", cases()))
