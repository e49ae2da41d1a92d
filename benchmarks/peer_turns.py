"""Recognisers read the same words in turn, one word at a time: what each read, and how long it took."""

from __future__ import annotations

import gc
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from tqdm import tqdm

from clip4str.benchmarks.peer_adapters import Contender
from clip4str.benchmarks.protocol import Protocol
from clip4str.runtime import ImageError
from clip4str.runtime.images import load_image
from clip4str.training.word_lmdb import LmdbWords

_WARM_UP = 10  # words read by every side before the first is timed
_SHORT = 0.002  # seconds between turns, where a side's thread pool may still be spinning


@dataclass
class Answers:
    """One set, one recogniser. seconds: of every word in the order read; the same places are the same words."""

    right: list[bool] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    failed: int = 0  # words at which the recogniser raised an error; they count as wrong


def labelled(words: LmdbWords, protocol: Protocol, limit: int | None = None) -> Iterator[tuple[np.ndarray | None, str]]:
    """(RGB pixels or None if the image cannot be read, label) of the first `limit` words that count."""

    def counted() -> Iterator[tuple[np.ndarray | None, str]]:
        for data, stored in words:
            label = protocol.label(stored)
            if label is None:
                continue
            try:
                yield np.asarray(load_image(data)), label
            except ImageError:
                yield None, label

    return islice(counted(), limit)


def race(
    sides: Sequence[Contender],
    words: Sequence[tuple[np.ndarray | None, str]],
    protocol: Protocol,
    name: str,
    threads: int = 1,
    progress: bool = False,
) -> list[Answers]:
    """Every side reads every word, and who begins changes from word to word. An unreadable image counts as wrong."""
    answers = [Answers() for _ in sides]
    for side in sides:
        for pixels in [pixels for pixels, _ in words if pixels is not None][:_WARM_UP]:
            _turn(side, pixels)
    pause = _SHORT if threads > 1 else 0.0
    gc.collect()
    gc.disable()
    try:
        for number, (pixels, label) in enumerate(
            tqdm(words, desc=name, unit="word", disable=None if progress else True)
        ):
            for k in range(len(sides)):
                which = (number + k) % len(sides)
                taken = answers[which]
                if pixels is None:
                    taken.right.append(False)
                    continue
                text, seconds = _turn(sides[which], pixels)
                taken.failed += text is None
                taken.right.append(text is not None and protocol.prediction(text) == label)
                taken.seconds.append(seconds)
                time.sleep(pause)
            if number % 100 == 99:
                gc.collect()
    finally:
        gc.enable()
    return answers


def _turn(side: Contender, pixels: np.ndarray) -> tuple[str | None, float]:
    native = side.convert(pixels)
    side.forget()
    began = time.perf_counter()
    try:
        text: str | None = side.read(native)
    except Exception:  # other people's code: the word counts as wrong, and the report says how many
        text = None
    return text, time.perf_counter() - began


def report(sides: Sequence[Contender], answers: dict[str, list[Answers]], reference: int = 0) -> list[dict[str, Any]]:
    """A row a recogniser. answers: set -> one Answers a side.

    accuracy: percent by set, and over all words. latency_ms: over all words of all sets. ratio: of its time to the
    reference's (the first side's): of the medians, and the quartiles over words.
    """
    times = [np.array([s for taken in answers.values() for s in taken[k].seconds]) for k in range(len(sides))]
    rows = []
    for k, side in enumerate(sides):
        right = {name: taken[k].right for name, taken in answers.items()}
        every = [value for values in right.values() for value in values]
        accuracy = {name: _percent(values) for name, values in right.items()}
        rows.append({
            "name": side.name, "package": side.package, "note": side.note, "bytes": side.bytes,
            "files": [file.name for file in side.files], "accuracy": accuracy, "combined": _percent(every),
            "failed": sum(taken[k].failed for taken in answers.values()),
            "latency_ms": _quartiles(1000 * times[k]),
            "ratio": {**_quartiles(times[k] / times[reference]),
                      "of_medians": _rounded(np.median(times[k]) / np.median(times[reference]))},
        })  # fmt: skip
    return rows


def _percent(values: Sequence[bool]) -> float:
    return round(100 * sum(values) / max(len(values), 1), 2)


def _quartiles(values: np.ndarray) -> dict[str, float]:
    low, middle, high = np.percentile(values, (25, 50, 75))
    return {"median": _rounded(middle), "quartile_1": _rounded(low), "quartile_3": _rounded(high)}


def _rounded(value: Any) -> float:
    return round(float(value), 3)
