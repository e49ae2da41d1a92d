"""Recognisers read the same words in turn, one word at a time: what each read, and how long it took."""

from __future__ import annotations

import gc
import math
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from tqdm import tqdm

from clip4str.benchmarks.peer_adapters import Contender, explained
from clip4str.core.errors import ImageError
from clip4str.data.protocol import Protocol
from clip4str.data.word_lmdb import LmdbWords
from clip4str.runtime.images import load_image

_WARM_UP = 10  # words read by every side before the first is timed
_SHORT = 0.002  # seconds between turns, where a side's thread pool may still be spinning


@dataclass
class Answers:
    """One set, one recogniser, in the order read; the same places are the same words.

    right: of every word. seconds: of every picture that could be opened, NaN where the recogniser raised an error.
    failed: at how many words it did; they count as wrong. error: the last of them.
    """

    right: list[bool] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    failed: int = 0
    error: str = ""


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
    """Every side reads every word, in an order drawn anew for each, so that no side always follows the same other.

    An image that cannot be opened counts as wrong.
    """
    order = np.random.default_rng(0)
    answers = [Answers() for _ in sides]
    for side in sides:
        for pixels in [pixels for pixels, _ in words if pixels is not None][:_WARM_UP]:
            with suppress(Exception):  # it is counted when the word's turn comes
                _turn(side, pixels)
    pause = _SHORT if threads > 1 else 0.0
    gc.collect()
    gc.disable()
    try:
        bar = tqdm(words, desc=name, unit="word", disable=None if progress else True)
        for number, (pixels, label) in enumerate(bar):
            for which in order.permutation(len(sides)):
                taken = answers[which]
                if pixels is None:
                    taken.right.append(False)
                    continue
                try:
                    text, seconds = _turn(sides[which], pixels)
                except Exception as error:  # other people's code: the report says at how many words
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
    """A row a recogniser. answers: set -> one Answers a side, none of which failed at all words.

    accuracy: by set; combined: over all words. latency_ms: over all words of all sets. ratio: of its time to that of
    the side `reference` at the same word, the quartiles over words; and of_medians, which other work on the machine
    moves more.
    """
    times = [np.array([s for taken in answers.values() for s in taken[k].seconds]) for k in range(len(sides))]
    rows = []
    for k, side in enumerate(sides):
        right = {name: taken[k].right for name, taken in answers.items()}
        rows.append({
            "name": side.name, "package": side.package, "note": side.note,
            "files": [file.name for file in side.files], "bytes": side.bytes, "weight_bytes": side.weight_bytes,
            "accuracy": {name: accuracy(values) for name, values in right.items()},
            "combined": accuracy([value for values in right.values() for value in values]),
            "failed": sum(taken[k].failed for taken in answers.values()),
            "latency_ms": _quartiles(1000 * times[k]),
            "ratio": {"to": sides[reference].name,
                      "of_medians": _rounded(np.nanmedian(times[k]) / np.nanmedian(times[reference])),
                      **_quartiles(times[k] / times[reference])},
        })  # fmt: skip
    return rows


def accuracy(right: Sequence[bool]) -> dict[str, float]:
    """Percent right, and between which percentages it lies at 95 %: Wilson's interval (1927), not empty at 0 or 100."""
    words, z = len(right), 1.959964
    p = sum(right) / words
    middle, half = p + z * z / (2 * words), z * math.sqrt(p * (1 - p) / words + (z / (2 * words)) ** 2)
    low, high = (100 * (middle + sign * half) / (1 + z * z / words) for sign in (-1, 1))
    return {
        "percent": round(100 * p, 2), "low": round(max(low, 0.0), 2), "high": round(min(high, 100.0), 2),
        "right": sum(right), "words": words,
    }  # fmt: skip


def _quartiles(values: np.ndarray) -> dict[str, float]:
    low, middle, high = np.nanpercentile(values, (25, 50, 75))
    return {"median": _rounded(middle), "quartile_1": _rounded(low), "quartile_3": _rounded(high)}


def _rounded(value: Any) -> float:
    return round(float(value), 3)
