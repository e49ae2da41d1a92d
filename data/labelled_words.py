"""Labelled words of the sets below some folders: which sets, and which of their words count."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import numpy as np

from clip4str.core.errors import ImageError, UsageError
from clip4str.data.protocol import Protocol
from clip4str.data.standard_sets import STANDARD, name_sets, standard_name
from clip4str.data.word_lmdb import LmdbWords, find_lmdb
from clip4str.runtime.images import load_image

ALTERED = "altered"


class LabelledWord(NamedTuple):
    """number: in its set, from 1. pixels: (H, W, 3) uint8 RGB, None if the image cannot be read. label: to match."""

    number: int
    pixels: np.ndarray | None
    label: str
    stored: str


def labelled(
    words: LmdbWords, protocol: Protocol, limit: int | None = None, noted: Counter[str] | None = None
) -> Iterator[LabelledWord]:
    """The first `limit` words that count. noted: gets how many were passed over until then, by the reason why, and how
    many count with something taken off, as ALTERED."""

    def counted() -> Iterator[LabelledWord]:
        for number, (data, stored) in enumerate(words, 1):
            label = protocol.label(stored)
            if noted is not None and (note := protocol.why_left_out(stored) or ALTERED * protocol.altered(stored)):
                noted[note] += 1
            if label is not None:
                yield LabelledWord(number, _pixels(data), label, stored)

    return islice(counted(), limit)


def _pixels(data: bytes) -> np.ndarray | None:
    try:
        return np.asarray(load_image(data))
    except ImageError:
        return None


def choose_sets(folders: Sequence[Path], wanted: Sequence[str] | None) -> dict[str, Path]:
    """The sets named; with none named the standard ones below `folders`, or all if there is no standard one."""
    sets: dict[str, Path] = {}
    for folder in folders:
        for name, place in name_sets(folder, find_lmdb(folder)).items():
            if sets.setdefault(name, place).resolve() != place.resolve():
                raise UsageError(f"two sets are named {name}: {sets[name]} and {place}")
    if not wanted:
        return {name: folder for name, folder in sets.items() if name in STANDARD} or sets
    return pick_sets(sets, wanted)


def pick_sets(sets: dict[str, Path], wanted: Sequence[str]) -> dict[str, Path]:
    """Of `sets` those wanted, under any usual spelling. Raises UsageError if there is no such set."""
    names = [name if name in sets else standard_name(Path(name)) or name for name in wanted]
    unknown = [name for name in names if name not in sets]
    if unknown:
        raise UsageError(f"no set named {', '.join(unknown)}; found: {', '.join(sets)}")
    return {name: sets[name] for name in names}
