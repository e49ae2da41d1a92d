"""Word crops for training: LMDB folders and orders for words to draw, as a stream of batches that can start anywhere.

Every batch is a function of (seed, its number) alone, so a resumed run sees what an uninterrupted one would have.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import IterableDataset, get_worker_info
from tqdm import tqdm

from clip4str.core.errors import DataError, ImageError, UsageError
from clip4str.core.text import Charset
from clip4str.data.word_lmdb import LmdbWords, find_lmdb, fraction
from clip4str.runtime.images import load_image

from .augment import distort, recolour, resize
from .drawing.order import Order, Orders
from .textless.crops import Textless

LONGEST = 25
ALTERED = "altered"
HELD_OUT = 0.05  # share of the real pictures that nothing is learned from
RENDERED_STRENGTH = 0.4  # rendered words come distorted already
TEXTLESS_STRENGTH = 0.5  # so are crops without text
GROUP = 8  # batches that share out words by length


class Batch(NamedTuple):
    """pixels uint8 (N, H, W, 3), tokens int64 (N, T + 1): [start] word [end], padded; number in the stream.

    order: what is still to be drawn, the last words of the batch: codes and faces, see drawing.order.Order.
    undecodable: names of pictures that gave way to others.
    """

    pixels: Tensor
    tokens: Tensor
    number: int
    order: tuple[Tensor, Tensor] | None = None
    undecodable: tuple[str, ...] = ()


def clean_label(label: str, charset: Charset, longest: int = LONGEST, noted: Counter[str] | None = None) -> str | None:
    """What is learned of a label: what the charset can write of it (Charset.spell); None if that is no word of 1 to
    `longest` characters. noted: gets a count of what was left out, and why, and as ALTERED of what was cut."""
    word = charset.spell(label)
    why = "with no character of the charset" if not word else ""
    why = why or (f"longer than {longest} characters" if len(word) > longest else "")
    if noted is not None and (note := why or (ALTERED if charset.alters(label) else "")):
        noted[note] += 1
    return None if why else word


def say_noted(noted: Counter[str]) -> str:
    """A line of what clean_label noted, "" if that is nothing."""
    reasons = ", ".join(f"{count:,} {why}" for why, count in sorted(noted.items()) if why != ALTERED)
    parts = [f"{noted[ALTERED]:,} altered (what the charset lacks, taken off)"] if noted[ALTERED] else []
    parts += [f"{sum(noted.values()) - noted[ALTERED]:,} left out: {reasons}"] if reasons else []
    return f"labels: {'; '.join(parts)}" if parts else ""


class Words:
    """Words of many LMDBs as one list: word i is `labels[i]` and `picture(i)`.

    rows: (source, row) of each word. weights: how often a source's words are drawn, beside those of the others.
    """

    def __init__(self, sources: Sequence[LmdbWords], rows: Sequence[tuple[int, int]], labels: Sequence[str],
                 weights: Sequence[float] | None = None) -> None:  # fmt: skip
        self.sources, self.labels = list(sources), list(labels)
        self.rows = np.array(rows, np.int64).reshape(-1, 2)
        self.lengths = np.array([len(word) for word in labels], np.int64)
        of_rows = np.ones(len(labels)) if weights is None else np.array(weights, float)[self.rows[:, 0]]
        self._below = np.cumsum(of_rows)
        self._undecodable: set[int] = set()

    def __len__(self) -> int:
        return len(self.labels)

    def draw(self, chance: float) -> int:
        """A word, by its weight: chance, uniform in [0, 1), says which."""
        return min(int(np.searchsorted(self._below, chance * self._below[-1], "right")), len(self) - 1)

    def picture(self, index: int) -> Image.Image | None:
        """RGB, as the runtime loads it, or None where the data set holds something that is no picture (most have a
        few)."""
        if index in self._undecodable:
            return None
        source, row = self.rows[index]
        try:
            return load_image(self.sources[source].image(row))
        except ImageError:
            self._undecodable.add(index)
            return None

    def name(self, index: int) -> str:
        """Of a picture, to be found by."""
        source, row = self.rows[index]
        return f"{self.sources[source].folder.name} image-{row:09d}"

    def check_decodable(self) -> None:
        """Looks for one picture that can be decoded. Raises DataError if there is none."""
        if len(self) and not any(self.picture(index) for index in range(len(self))):
            folders = ", ".join(str(source.folder) for source in self.sources)
            raise DataError(f"{folders}: none of the {len(self):,} pictures can be decoded; are they pictures?")
        self.close()

    def close(self) -> None:
        """Before worker processes are forked: what is open must not be shared with them. Reading on opens it anew."""
        for source in self.sources:
            source.close()


def load_words(
    folders: Sequence[str | os.PathLike[str]], charset: Charset, held_out: float = 0.0, progress: bool = False,
    left_out: Collection[str] = (), weights: Mapping[str, float] | None = None, caseless: Collection[str] = (),
    apart: Collection[Path] = (), longest: int = LONGEST, noted: Counter[str] | None = None,
) -> tuple[Words, Words]:  # fmt: skip
    """Words to train on and words held out, out of all LMDBs below the folders.

    Held out is a share of all distinct pictures, chosen by a hash of their bytes: it stays the same whatever else is
    trained on, and copies of a picture stay on one side. In neither part: left_out, SHA-256 of pictures, see
    data/left_out.py; the sets in `apart` (LMDB folders); the words with letters of the sets in `caseless`, whose labels
    do not say which case is printed. weights multiply a set's rows, 0 leaves it out. A set is called as its folder is.
    longest, noted: as clean_label takes them. Raises DataError, and UsageError for a name that no set has.
    """
    weights, places = weights or {}, {path.resolve() for path in apart}
    found = [path for folder in folders for path in find_lmdb(folder)]
    _check_names((*weights, *caseless), found)
    found = [path for path in found if path.resolve() not in places and weights.get(path.name, 1.0) > 0]
    sources = [LmdbWords(path) for path in found]
    parts: tuple[list, list] = ([], [])
    total = sum(map(len, sources))
    with tqdm(total=total, desc="reading labels", unit="word", disable=not progress, leave=False) as bar:
        for number, source in enumerate(sources):
            for row in range(1, len(source) + 1):
                word = clean_label(source.label(row, "replace"), charset, longest, noted)
                if word is not None and source.folder.name in caseless and word.lower() != word.upper():
                    word = None
                if word is not None and left_out and _digest(source.image(row)) in left_out:
                    word = None
                if word is not None:
                    away = held_out > 0 and fraction(source.image(row)) < held_out
                    parts[away].append(((number, row), word))
            bar.update(len(source))
            source.close()
    if not parts[0]:
        raise DataError(f"{', '.join(map(str, folders))}: no word of 1 to {longest} characters of the charset")
    shares = [weights.get(path.name, 1.0) for path in found]
    train, held = (Words(sources, [r for r, _ in part], [w for _, w in part], shares) for part in parts)
    return train, held


def _check_names(names: Sequence[str], found: Sequence[Path]) -> None:
    known = {path.name for path in found}
    for name in names:
        if name not in known:
            raise UsageError(f"no set is called {name!r}; there are {', '.join(sorted(known))}")


def load_validation(
    folders: Sequence[str | os.PathLike[str]], charset: Charset, longest: int = LONGEST
) -> tuple[dict[str, Words], list[Path], frozenset[str]]:
    """Whole sets held out: their words by name, their LMDB folders, and the SHA-256 of their pictures.

    Raises DataError; UsageError if two sets have one name.
    """
    sets: dict[str, Words] = {}
    places, pictures = [], set[str]()
    for path in (path for folder in folders for path in find_lmdb(folder)):
        if path.name in sets:
            raise UsageError(f"{path}: a second validation set called {path.name}; rename the folder")
        sets[path.name] = load_words([path], charset, longest=longest)[0]
        places.append(path)
        with LmdbWords(path) as source:
            pictures.update(_digest(image) for image, _ in source)
    return sets, places, frozenset(pictures)


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def encode_words(words: Sequence[str], charset: Charset) -> Tensor:
    """Tokens int64 (N, longest + 2, at least 3): [start] word [end], padded. A word may be empty."""
    tokens = np.full((len(words), max(1, *map(len, words), 0) + 2), charset.pad, np.int64)
    for row, word in zip(tokens, words):
        row[: len(word) + 2] = [charset.start, *charset.encode(word), 0]
    return torch.from_numpy(tokens)


def dealt(seed: int, number: int) -> int:
    """Which of its group's shares, from the shortest words to the longest, batch `number` gets."""
    return int(np.random.default_rng((seed, 3, number // GROUP)).permutation(GROUP)[number % GROUP])


class Stream(IterableDataset):
    """Endless batches, beginning with number `start`.

    sources: word lists, each with its share of every batch and its strength of augmentation (0..1). render: share of
    words that are only ordered here (from `orders`, which drawing.data.drawn_beside sets, with `vocabulary` as their
    word list) and drawn where training runs. Shares add up to 1. textless: a share of every batch on which nothing is
    to be read, with the empty word, and where its crops come from; the other shares are of the rest. rank, world: this
    process's part under DDP. Words of a length go together, so that few positions are wasted on padding: eight batches'
    worth is chosen at once, sorted by length and dealt out.
    """

    def __init__(
        self, sources: Sequence[tuple[Words, float, float]], charset: Charset, size: tuple[int, int], batch: int,
        seed: int = 0, render: float = 0.0, vocabulary: Sequence[str] = (), augment: bool = True,
        rank: int = 0, world: int = 1, textless: tuple[float, Textless] | None = None,
    ) -> None:  # fmt: skip
        self.sources, self.charset, self.size, self.batch = list(sources), charset, size, batch
        self.seed, self.vocabulary, self.augment = seed, list(vocabulary), augment
        self.rank, self.world, self.start = rank, world, 0
        self.empty, self.crops = round(textless[0] * batch) if textless else 0, textless[1] if textless else None
        self.rendered = round(render * (batch - self.empty))
        self.orders: Orders | None = None
        self._ordered: tuple[int, Order, np.ndarray] | None = None
        shares = np.array([share for _, share, _ in sources], float)
        self._shares = shares / shares.sum() if len(shares) else shares

    def __iter__(self) -> Iterator[Batch]:
        worker = get_worker_info()
        first, step = (worker.id, worker.num_workers) if worker else (0, 1)
        number = self.start + first
        while True:
            yield self.make(number)
            number += step

    def make(self, number: int) -> Batch:
        """Batch `number` of this process."""
        number = number * self.world + self.rank
        rng = np.random.default_rng((self.seed, 1, number))
        pictures, words, strengths = [], [], []
        undecodable: list[str] = []
        for source, index in self._chosen(number):
            stored = self.sources[source][0]
            for place in range(index, index + len(stored)):  # an undecodable picture gives way to its neighbour
                picture = stored.picture(place % len(stored))
                if picture is not None:
                    break
                undecodable.append(stored.name(place % len(stored)))
            else:
                raise DataError(
                    f"none of {len(stored):,} pictures can be decoded any more, the last: {undecodable[-1]}"
                )
            pictures.append(picture)
            words.append(stored.labels[place % len(stored)])
            strengths.append(self.sources[source][2])
        for k in range(self.empty):
            assert self.crops is not None
            pictures.append(self.crops.crop(number * self.empty + k).picture)
            words.append("")
            strengths.append(TEXTLESS_STRENGTH)
        if not pictures:
            pixels = np.zeros((0, *self.size, 3), np.uint8)
        elif self.augment:
            distorted = [distort(p, self.size, rng, s) for p, s in zip(pictures, strengths)]
            pixels = recolour(np.stack(distorted), rng, np.array(strengths))
        else:
            pixels = np.stack([resize(p, self.size) for p in pictures])
        order = None
        if self.rendered:
            codes, faces, labels = self._order(number)
            words += labels
            order = (torch.from_numpy(codes), torch.from_numpy(faces))
        tokens = encode_words(words, self.charset)
        return Batch(torch.from_numpy(pixels), tokens, number, order, tuple(dict.fromkeys(undecodable)))

    def _chosen(self, number: int) -> list[tuple[int, int]]:
        """(source, word) of the batch's stored words."""
        size = self.batch - self.rendered - self.empty
        if not size or not self.sources:
            return []
        rng = np.random.default_rng((self.seed, 0, number // GROUP))
        source = rng.choice(len(self.sources), size=GROUP * size, p=self._shares)
        index = [self.sources[s][0].draw(chance) for s, chance in zip(source, rng.random(len(source)))]
        length = np.array([self.sources[s][0].lengths[i] for s, i in zip(source, index)])
        ranked = np.argsort(length + rng.uniform(-1.5, 1.5, len(length)))
        chunk = dealt(self.seed, number)
        mine = ranked[chunk * size : (chunk + 1) * size]
        return [(int(source[i]), int(index[i])) for i in mine]

    def _order(self, number: int) -> Order:
        """The batch's words to draw elsewhere."""
        assert self.orders is not None
        group, first = number // GROUP, dealt(self.seed, number) * self.rendered
        if self._ordered is None or self._ordered[0] != group:
            order = self.orders.take(GROUP * self.rendered, f"{self.seed}/group {group}")
            length = np.array([len(label) for label in order.labels])
            jitter = np.random.default_rng((self.seed, 4, group)).uniform(-1.5, 1.5, len(length))
            self._ordered = (group, order, np.argsort(length + jitter))
        _, order, ranked = self._ordered
        return order.rows(ranked[first : first + self.rendered])

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_ordered": None}
