"""Recognisers read the same words in turn, one word at a time: answers and times."""

from __future__ import annotations

import gc
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from tqdm import tqdm

from clip4str.benchmarks.figures import accuracy, quartiles
from clip4str.benchmarks.peer_adapters import Contender, explained
from clip4str.data.labelled_words import LabelledWord
from clip4str.data.protocol import Protocol

_WARM_UP = 10  # words read by every side before the first is timed
_SHORT = 0.002  # seconds between turns, in which a side's thread pool may still spin


@dataclass
class Answers:
    """One set, one recogniser, in the order read; equal indices are the same word.

    right: of every word. seconds: of every picture that could be opened, NaN where the recogniser raised an error.
    failed: number of such words, which count as wrong. error: the last one.
    """

    right: list[bool] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    failed: int = 0
    error: str = ""


def race(
    sides: Sequence[Contender],
    words: Sequence[LabelledWord],
    protocol: Protocol,
    name: str,
    threads: int = 1,
    progress: bool = False,
) -> list[Answers]:
    """Every side reads every word, in a random order for each word, so that no side always follows the same other.

    An image that cannot be opened counts as wrong.
    """
    order = np.random.default_rng(0)
    answers = [Answers() for _ in sides]
    for side in sides:
        for pixels in [word.pixels for word in words if word.pixels is not None][:_WARM_UP]:
            with suppress(Exception):  # counted when the word's turn comes
                _turn(side, pixels)
    pause = _SHORT if threads > 1 else 0.0
    gc.collect()
    gc.disable()
    try:
        bar = tqdm(words, desc=name, unit="word", disable=None if progress else True)
        for number, (_, pixels, label, _) in enumerate(bar):
            for which in order.permutation(len(sides)):
                taken = answers[which]
                if pixels is None:
                    taken.right.append(False)
                    continue
                try:
                    text, seconds = _turn(sides[which], pixels)
                except Exception as error:  # third-party code: the report counts the words
                    taken.failed, taken.error = taken.failed + 1, explained(error)
                    text, seconds = "", np.nan
                taken.right.append(protocol.prediction(text) == label)
                taken.seconds.append(seconds)
                time.sleep(pause)
            if number % 100 == 99:
                gc.collect()
    finally:
        gc.enable()
    return answers


def _turn(side: Contender, pixels: np.ndarray) -> tuple[str, float]:
    native = side.convert(pixels)
    side.forget()
    began = time.perf_counter()
    text = side.read(native)
    return text, time.perf_counter() - began


def report(sides: Sequence[Contender], answers: dict[str, list[Answers]], reference: int = 0) -> list[dict[str, Any]]:
    """A row for each recogniser. answers: set -> Answers of each side, none of which failed at every word.

    accuracy: by set; combined: over all words. latency_ms: over all words of all sets. ratio: of its time to that of
    the side `reference` for the same word, quartiles over words; and of_medians, which depends more on other work on
    the machine.
    """
    times = [np.array([s for taken in answers.values() for s in taken[k].seconds]) for k in range(len(sides))]
    rows = []
    for k, side in enumerate(sides):
        right = {name: taken[k].right for name, taken in answers.items()}
        rows.append({
            "name": side.name, "package": side.package, "note": side.note,
            "files": [file.name for file in side.files], "bytes": side.bytes,
            "accuracy": {name: accuracy(values) for name, values in right.items()},
            "combined": accuracy([value for values in right.values() for value in values]),
            "failed": sum(taken[k].failed for taken in answers.values()),
            "latency_ms": quartiles(1000 * times[k]),
            "ratio": {"to": sides[reference].name,
                      "of_medians": round(float(np.nanmedian(times[k]) / np.nanmedian(times[reference])), 3),
                      **quartiles(times[k] / times[reference])},
        })  # fmt: skip
    return rows
