"""Every switch of kernels/options.py turned over, one at a time, and those together that are predicted to gain: time on
the device, and whether answers stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any

import numpy as np
import torch

from clip4str.benchmarks.gpu.device import Gpu, spread
from clip4str.benchmarks.gpu.end_to_end import Graphed, Networks
from clip4str.benchmarks.gpu.networks import random_pixels
from clip4str.benchmarks.gpu.supervisor import Reporter
from clip4str.benchmarks.gpu.warm import ahead, launch_each
from clip4str.kernels.options import NAMES, Options, options, using
from clip4str.kernels.shared.ahead import meta
from clip4str.model import Config
from clip4str.runtime.backends.pytorch.prepared import launch_buckets
from clip4str.runtime.backends.pytorch.program import Program

# Only when kernels start changes, not what they compute: every row's bits, or, where some rows are left to be read
# further because of it, those of the others.
SAME_BITS, SAME_ANSWERS = ("dependent_launch", "fork"), ("verify_beside",)
TOGETHER = "together"
ONE_WORD = ("dependent_launch", "short_attention", "verify_beside")
MANY_WORDS = ("dependent_launch", "descriptors", "verify_beside")
SPLIT, SPLIT_BATCH = "split_k", 2  # B/16: `down` of one word is not split, and 64 words have rows enough
_REPEATS = 20
_COMPILING = 0.5  # of the section's time at most


def time_options(gpu: Gpu, report: Reporter, config: Config, batches: Sequence[int]) -> None:
    """batches: the most wanted first; split_k in the place of them at SPLIT_BATCH."""
    networks, before = Networks(gpu, config), options()
    report.values |= {"defaults": asdict(before), "batches": {}}
    turns = {batch: [TOGETHER, *(name for name in NAMES if name != SPLIT)] for batch in batches}
    turns.setdefault(SPLIT_BATCH, []).append(SPLIT)
    if gpu.kind != "cpu":
        program = meta(networks.fused(1).program)
        turned = [(_turned(before, name, batch), batch) for batch, names in turns.items() for name in names]
        seconds = _COMPILING * report.clock.left()
        report.values["problems"] = ahead(gpu, launch_turned, (program, turned), seconds)
    for batch, names in turns.items():
        values = report.values["batches"][str(batch)] = {}
        usual = report.attempt(f"batch {batch}, as it is", gpu.least(3), Graphed, gpu, networks, batch)
        for name in names if usual else ():
            given = (gpu, report, networks, batch, usual, name, _turned(before, name, batch))
            values[name] = report.attempt(f"batch {batch}, {name}", gpu.least(3), _turn, *given)
        gpu.free()


def launch_turned(program: Program, turned: Sequence[tuple[Options, int]]) -> None:
    """The same kernels on the meta device, to be compiled. Raises RuntimeError for those that fail, at the end."""

    def launch(chosen: Options, batch: int) -> None:
        with using(chosen):
            launch_buckets(program, (batch,))

    launch_each([(f"batch {batch}, {chosen}", partial(launch, chosen, batch)) for chosen, batch in turned])


def _turned(before: Options, name: str, batch: int) -> Options:
    if name == TOGETHER:
        return replace(before, **dict.fromkeys(ONE_WORD if batch == 1 else MANY_WORDS, True))
    return replace(before, **{name: not getattr(before, name)})


def _turn(
    gpu: Gpu, report: Reporter, networks: Networks, batch: int, usual: Graphed, name: str, turned: Options
) -> dict[str, Any]:
    """Times of both in turn, in microseconds, and how many of the words that both have settled differ. Fails where bits
    change that should not, or from run to run."""
    with using(turned):
        other = Graphed(gpu, networks, batch)
    pixels = random_pixels(networks.config, batch, gpu.device, 1)
    words, others = usual(pixels), other(pixels)
    answers = other.program.results.clone()
    for _ in range(2 if gpu.kind == "cpu" else _REPEATS):
        other.replay()
        gpu.sync()
        if not torch.equal(answers, other.program.results):
            report.fail(f"batch {batch}, {name}", "answers change from run to run")
            break
    program, both = usual.program.program, (answers.cpu().numpy(), usual.program.results.cpu().numpy())
    settled = ~(program.open_rows(both[0]) | program.open_rows(both[1]))
    if not _same(name, program, *both, settled):
        report.fail(f"batch {batch}, {name}", "answers are not those without it")
    before, after = [], []
    for _ in range(5):
        before += gpu.seconds(usual.replay, 20, limit=0.2)
        after += gpu.seconds(other.replay, 20, limit=0.2)
    times = {"as_it_is": spread(before), "turned": spread(after)}
    ratio = times["as_it_is"]["median"] / times["turned"]["median"]
    differ = sum(a != b for a, b, compared in zip(words, others, settled) if compared)
    on = [switch for switch in NAMES if getattr(turned, switch)]
    return {"on": on, **times, "times_faster": round(ratio, 4), "words_differ": differ}


def _same(name: str, program: Program, answers: np.ndarray, usual: np.ndarray, settled: np.ndarray) -> bool:
    """Of two results (n, width): are they those that this switch must leave as they are? settled (n,) bool: in both."""
    if name in SAME_BITS:
        return np.array_equal(answers, usual)
    places = [program.columns[column] for column in ("ids", "probs")]
    return name not in SAME_ANSWERS or all(
        np.array_equal(answers[settled, place], usual[settled, place]) for place in places
    )
