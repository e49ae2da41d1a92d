"""Training pictures that are copies of test pictures: sets of both sides, the search, and how sure its answer is."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tqdm import tqdm

from clip4str.core.errors import ImageError
from clip4str.data.likeness import ALTERATIONS, THUMBNAIL, fitted_stretch, likeness, similar, thumbnail
from clip4str.data.protocol import Protocol
from clip4str.data.word_lmdb import LmdbWords, find_lmdb
from clip4str.runtime.images import load_image

Place = tuple[int, int]  # number of a set on its side, row in it
BLOCK = 512  # training pictures in memory at a time
LEAST = 0.8  # likeness that is worth counting; altered copies reach far more
_STEPS = np.round(np.arange(LEAST, 1, 0.02), 2)
_PROTOCOL = Protocol()
_EXACT = ("bytes", "pixels")


class Finding(NamedTuple):
    """A pair. kind: bytes, pixels, near, stretched (near, but of another shape) or below (the threshold).

    likeness: None where the pictures cannot be read. fit: see likeness.py. stretch: between the parts that fit.
    """

    kind: str
    likeness: float | None
    fit: tuple[int, ...]
    stretch: float
    train: Place
    test: Place
    same_label: bool


@dataclass
class Pictures:
    """Some pictures of a side, in order. An unreadable one has "" for pixels, NaN for shape and a black thumbnail."""

    places: list[Place] = field(default_factory=list)
    words: list[str] = field(default_factory=list)
    files: list[str] = field(default_factory=list)
    pixels: list[str] = field(default_factory=list)
    shapes: list[float] = field(default_factory=list)
    thumbnails: list[np.ndarray] = field(default_factory=list)

    def add(self, place: Place, data: bytes, label: str) -> bool:
        """Whether it could be read."""
        self.places.append(place)
        self.words.append(_PROTOCOL.label(label) or label.strip().lower())
        self.files.append(hashlib.sha256(data).hexdigest())
        try:
            image = load_image(data)
        except ImageError:
            self.pixels.append("")
            self.shapes.append(float("nan"))
            self.thumbnails.append(np.zeros(THUMBNAIL, np.uint8))
            return False
        self.pixels.append(hashlib.sha256(repr(image.size).encode() + image.tobytes()).hexdigest())
        self.shapes.append(image.width / image.height)
        self.thumbnails.append(thumbnail(image))
        return True


class Side:
    """The LMDB sets below some folders, each taken once, by names that hold no path above these folders.

    Raises DataError if a folder is missing or holds none.
    """

    def __init__(self, folders: Sequence[Path]) -> None:
        self.names: list[str] = []
        self.sets: list[LmdbWords] = []
        self.unreadable: Counter[int] = Counter()
        seen: set[Path] = set()
        for root in folders:
            for folder in find_lmdb(root):
                if folder.resolve() not in seen:
                    seen.add(folder.resolve())
                    below = folder.relative_to(root).as_posix()
                    self.names.append(self._unused(root.resolve().name if below == "." else below))
                    self.sets.append(LmdbWords(folder))

    def _unused(self, name: str) -> str:
        same = sum(other == name or other.startswith(f"{name} (") for other in self.names)
        return f"{name} ({same + 1})" if same else name

    def __len__(self) -> int:
        return sum(map(len, self.sets))

    def blocks(self, size: int, progress: tqdm | None = None) -> Iterator[Pictures]:
        """All pictures, at most `size` at a time, in order; counts the unreadable ones."""
        self.unreadable.clear()
        block = Pictures()
        for number, words in enumerate(self.sets):
            for row in range(1, len(words) + 1):
                if not block.add((number, row), words.image(row), words.label(row, "replace")):
                    self.unreadable[number] += 1
                if progress is not None:
                    progress.update()
                if len(block.places) == size:
                    yield block
                    block = Pictures()
        if block.places:
            yield block

    def close(self) -> None:
        for words in self.sets:
            words.close()

    def image(self, place: Place) -> bytes:
        return self.sets[place[0]].image(place[1])

    def describe(self, place: Place) -> dict[str, Any]:
        number, row = place
        label = self.sets[number].label(row, "replace")
        digest = hashlib.sha256(self.image(place)).hexdigest()
        return {"set": self.names[number], "row": row, "label": label, "sha256": digest}

    def counts(self) -> dict[str, dict[str, int]]:
        return {
            name: {"pictures": len(words), "unreadable": self.unreadable[number]}
            for number, (name, words) in enumerate(zip(self.names, self.sets))
        }


class Search:
    """Compares every training picture with every test picture: some ten microseconds a pair.

    same_label: pictures only with those that have the same word; equal files and pixels are found under any.
    Memory: 10 KB a test picture, and a block of training pictures.
    """

    def __init__(
        self, train: Side, test: Side, threshold: float, stretch: float, pairs: int, same_label: bool = False
    ) -> None:
        self.train, self.test, self.threshold, self.stretch, self.pairs = train, test, threshold, stretch, pairs
        self.same_label = same_label
        self.found: list[Finding] = []
        self.stretched: list[Finding] = []
        self.closest: list[Finding] = []
        self.tests = Pictures()
        self._best: dict[bool, np.ndarray] = {}  # same label? -> each test picture's highest likeness, exact copies out
        self._compared: Counter[bool] = Counter()

    def run(self, progress: bool = False) -> None:
        self.tests = next(self.test.blocks(max(1, len(self.test))), Pictures())
        self._best = {same: np.zeros(len(self.tests.places)) for same in (False, True)}
        thumbnails = np.array(self.tests.thumbnails, np.uint8).reshape(-1, *THUMBNAIL)
        with tqdm(total=len(self.train), unit="picture", disable=not progress, leave=False) as bar:
            for block in self.train.blocks(BLOCK, bar):
                self._count(block)
                self._near(block, thumbnails, self._exact(block))
        for findings in (self.found, self.stretched, self.closest):
            findings.sort(key=_rank)

    def _count(self, block: Pictures) -> None:
        ours, theirs = (
            Counter(word for word, pixels in zip(side.words, side.pixels) if pixels) for side in (self.tests, block)
        )
        same = sum(count * theirs[word] for word, count in ours.items())
        self._compared[True] += same
        if not self.same_label:
            self._compared[False] += ours.total() * theirs.total() - same

    def _exact(self, block: Pictures) -> set[tuple[int, int]]:
        """(number of a test picture, number in the block) of the pairs with equal bytes or pixels, now in `found`."""
        pairs: dict[tuple[int, int], str] = {}
        digests = ((self.tests.files, block.files), (self.tests.pixels, block.pixels))
        for kind, (ours, theirs) in zip(_EXACT, digests):
            where: dict[str, list[int]] = {}
            for test, digest in enumerate(ours):
                where.setdefault(digest, []).append(test)
            for train, digest in enumerate(theirs):
                for test in where.get(digest, ()) if digest else ():
                    pairs.setdefault((test, train), kind)
        for (test, train), kind in pairs.items():
            score = 1.0 if block.pixels[train] else None
            self.found.append(self._finding(kind, score, (0, 0, 0, 0), block, train, test))
        return set(pairs)

    def _near(self, block: Pictures, thumbnails: np.ndarray, exact: set[tuple[int, int]]) -> None:
        for test, train, score, fit in self._similar(block, thumbnails):
            if (test, train) in exact:
                continue
            pair = self._finding("near", score, tuple(fit.tolist()), block, train, test)
            if pair.stretch <= self.stretch:
                best = self._best[pair.same_label]
                best[test] = max(best[test], score)
                if score >= self.threshold:
                    self.found.append(pair)
                else:
                    self.closest.append(pair._replace(kind="below"))
            elif score >= self.threshold:
                self.stretched.append(pair._replace(kind="stretched"))
        self.closest = sorted(self.closest, key=_rank)[: self.pairs]

    def _similar(self, block: Pictures, thumbnails: np.ndarray) -> Iterator[tuple[int, int, float, np.ndarray]]:
        """As likeness.similar, of what is to be compared."""
        theirs = np.stack(block.thumbnails)
        if not self.same_label:
            yield from similar(thumbnails, theirs)
            return
        for word in sorted(set(self.tests.words) & set(block.words)):
            ours, others = ([i for i, w in enumerate(words) if w == word] for words in (self.tests.words, block.words))
            for test, train, score, fit in similar(thumbnails[ours], theirs[others]):
                yield ours[test], others[train], score, fit

    def _finding(
        self, kind: str, score: float | None, fit: tuple[int, ...], block: Pictures, train: int, test: int
    ) -> Finding:
        shapes = self.tests.shapes[test], block.shapes[train]
        stretch = 1.0 if score is None else fitted_stretch(fit, *shapes)
        same = block.words[train] == self.tests.words[test]
        return Finding(kind, score, fit, stretch, block.places[train], self.tests.places[test], same)

    def shown(self) -> list[Finding]:
        """What a person should look at: what was found, then the closest of the rest."""
        return [*self.found, *sorted(self.stretched + self.closest, key=_rank)][: self.pairs]

    def report(self, copies: int) -> dict[str, Any]:
        """Everything as JSON: set names and rows, no path, no picture. copies: see altered_copies."""
        kinds = Counter(pair.kind for pair in self.found)
        return {
            "train": self.train.counts(),
            "test": self.test.counts(),
            "threshold": self.threshold,
            "stretch": self.stretch,
            "found": {
                **{kind: kinds[kind] for kind in (*_EXACT, "near")},
                "with_other_label": sum(not pair.same_label for pair in self.found),
                "pairs": [self.describe(pair) for pair in self.found],
            },
            "altered_copies": self.altered_copies(copies),
            "other_labels": self._rest(False),
            "same_labels": self._rest(True),
            "stretched": [self.describe(pair) for pair in self.stretched],
            "closest": [self.describe(pair) for pair in self.closest],
        }

    def _rest(self, same: bool) -> dict[str, Any]:
        """Pairs that are no exact copies, with labels that are the same or not. Those with other labels are taken for
        no copies: one at the threshold is a false alarm, unless a label is wrong."""
        best = self._best[same]
        return {
            "pairs": self._compared[same],
            "at_threshold": sum(pair.kind == "near" and pair.same_label == same for pair in self.found),
            "highest": round(float(best.max(initial=0)), 4),
            "test_pictures_by_highest": _spread(best),
        }

    def altered_copies(self, count: int) -> dict[str, Any]:
        """Copies of up to `count` test pictures, altered in every way of likeness.ALTERATIONS, that would be missed."""
        readable = [i for i, pixels in enumerate(self.tests.pixels) if pixels]
        rng = np.random.default_rng(0)
        chosen = sorted(rng.choice(readable, min(count, len(readable)), replace=False).tolist()) if readable else []
        scores: dict[str, list[float]] = {kind: [] for kind in ALTERATIONS}
        for test in chosen:
            image, shape = load_image(self.test.image(self.tests.places[test])), self.tests.shapes[test]
            altered = [alter(image, rng) for alter in ALTERATIONS.values()]
            original = np.stack([self.tests.thumbnails[test]] * len(altered))
            values, fits = likeness(original, np.stack([thumbnail(copy) for copy in altered]))
            for kind, copy, value, fit in zip(ALTERATIONS, altered, values.tolist(), fits):
                stretch = fitted_stretch(fit, shape, copy.width / copy.height)
                scores[kind].append(value if stretch <= self.stretch else 0.0)
        by_kind = {
            kind: {
                "copies": len(found),
                "missed": sum(score < self.threshold for score in found),
                "lowest_of_100": round(float(np.quantile(found, 0.01)), 4),
            }
            for kind, found in scores.items()
            if found
        }
        every = np.array([score for found in scores.values() for score in found])
        return {
            "pictures": len(chosen),
            "copies": len(every),
            "missed": int((every < self.threshold).sum()),
            "copies_by_likeness": _spread(every),
            "by_kind": by_kind,
        }

    def describe(self, pair: Finding) -> dict[str, Any]:
        return {
            "kind": pair.kind,
            "likeness": None if pair.likeness is None else round(pair.likeness, 4),
            "fit": list(pair.fit),
            "stretch": round(pair.stretch, 3),
            "same_label": pair.same_label,
            "train": self.train.describe(pair.train),
            "test": self.test.describe(pair.test),
        }


def _rank(pair: Finding) -> tuple[bool, float, Place, Place]:
    """Exact copies first, then the most alike."""
    return pair.kind not in _EXACT, -(pair.likeness or 0), pair.test, pair.train


def _spread(scores: np.ndarray) -> dict[str, int]:
    """How many are below LEAST, and in every step from there."""
    counts = np.histogram(scores, [-np.inf, *_STEPS, np.inf])[0].tolist()
    return dict(zip([f"below {LEAST}", *(f"from {step:.2f}" for step in _STEPS)], counts))
