"""How the learning rate goes over a run, as a share of the full rate.

one-cycle: the published schedule; where it ends must be known from the start. constant and decay: a run that can stop
and be extended at any time (Zhai et al., "Scaling Vision Transformers", CVPR 2022): after a warm-up the rate stays, and
when there is something to be shipped a copy of the run is decayed to zero (Haegele et al., "Scaling Laws and
Compute-Optimal Training Beyond Fixed Training Durations", NeurIPS 2024), while the run itself goes on.
"""

from __future__ import annotations

import math

SCHEDULES = ("one-cycle", "constant", "decay")
WARM_UP = 0.075  # of a one-cycle run


def learning_rate(schedule: str, progress: float, step: int, warm_up: int) -> float:
    """Share of the full rate. progress: of the run, 0 to 1 (of no matter to constant). step: optimiser steps done.
    warm_up: steps of constant's warm-up."""
    if schedule == "constant":
        return min(1.0, (step + 1) / max(1, warm_up))
    return one_cycle(progress) if schedule == "one-cycle" else decay(progress)


def one_cycle(progress: float) -> float:
    """The published schedule, as torch's OneCycleLR: a cosine up for 7.5 % of the run, a cosine down for the rest."""
    if progress < WARM_UP:
        return 1 / 25 + (1 - 1 / 25) * (1 - math.cos(math.pi * progress / WARM_UP)) / 2
    down = min(1.0, (progress - WARM_UP) / (1 - WARM_UP))
    return 1 / 25e4 + (1 - 1 / 25e4) * (1 + math.cos(math.pi * down)) / 2


def decay(progress: float) -> float:
    """To zero as 1 - sqrt, which Haegele et al. found to end lower than a straight line."""
    return 1 - math.sqrt(min(1.0, progress))
