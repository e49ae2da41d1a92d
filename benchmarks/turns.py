"""Sides read the same batches in turn, so that other work on the machine affects all of them alike."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from tqdm import tqdm

from clip4str.benchmarks.latency_sides import Turn

_PAUSE = 0.01  # seconds between turns, so that one side's thread pool does not spin in the other's time


def take_turns(
    sides: Mapping[str, Callable[[Sequence[np.ndarray]], Turn]],
    images: Sequence[np.ndarray],
    batch: int,
    repeat: int,
    warmup: int = 2,
    seconds: float = float("inf"),
    progress: bool = False,
) -> dict[str, list[Turn]]:
    """Side -> its turns, A B A B, over images that change from one repetition to the next. If they take longer than
    `seconds`, fewer repetitions than `repeat`, but at least three."""
    turns: dict[str, list[Turn]] = {name: [] for name in sides}
    bar = tqdm(total=repeat, desc=f"batch {batch}", unit="rep", disable=None if progress else True, leave=False)
    deadline = float("inf")
    gc.collect()
    gc.disable()
    try:
        for repetition in range(-warmup, repeat):
            if repetition == 0:
                deadline = time.perf_counter() + seconds
            chosen = [images[(repetition * batch + i) % len(images)] for i in range(batch)]
            for name, side in sides.items():
                turn = side(chosen)
                if repetition >= 0:
                    turns[name].append(turn)
                time.sleep(_PAUSE)
            bar.update(repetition >= 0)
            if repetition >= 2 and time.perf_counter() > deadline:
                break
    finally:
        gc.enable()
        bar.close()
    return turns
