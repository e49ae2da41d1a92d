"""Which eight bits a CPU computes fast: those of fixed ranges, or of new ones in every batch."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np

# A dynamic range is that of the whole batch: an image's answer then depends on what it is read with. Fixed ranges are
# without that fault, and have to be this much slower, in three rounds of four, to be left.
MARGIN = 1.25
ROUNDS, SECONDS = 41, 6.0

Times = Mapping[str, Sequence[float]]


def faster_scheme(times: Times) -> str:
    """ "dynamic" if the lower quartile of its gain over "qdq", round by round, is above MARGIN, else "qdq"."""
    gains = [fixed / dynamic for fixed, dynamic in zip(times["qdq"], times["dynamic"])]
    return "dynamic" if statistics.quantiles(gains, n=4)[0] > MARGIN else "qdq"


def faster(times: Times, scheme: str) -> bool:
    """Than float32: in more than half of the rounds."""
    return statistics.median(b / a for a, b in zip(times[scheme], times["float32"])) > 1


def time_in_turn(
    files: Mapping[str, Path], feed: Mapping[str, np.ndarray], clock: Callable[[], float] = time.perf_counter
) -> dict[str, list[float]]:
    """Seconds of each stage file on ONNX Runtime, round after round: what disturbs one disturbs the others.

    On one thread: two wait for each other, and on a busy machine it is the waiting that would be timed.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = 1, 3
    sessions = {
        name: onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
        for name, path in files.items()
    }
    for session in sessions.values():
        session.run(None, feed)
    times: dict[str, list[float]] = {name: [] for name in files}
    end = clock() + SECONDS
    for round_ in range(ROUNDS):
        for name, session in sorted(sessions.items(), reverse=bool(round_ % 2)):
            start = clock()
            session.run(None, feed)
            times[name].append(clock() - start)
        if round_ >= 4 and clock() > end:
            break
    return times
