"""Predict and refine with a number of passes fixed beforehand, so that all of it can be one CUDA graph.

core/driver.py asks after every pass whether anything has changed; here nothing is asked. Each row's answer comes with
the two questions that were not asked, and where one of them turns out badly the row is read further:

    unsettled    a branch's last pass still changed something: `resume` goes on from the words as they are
    refined      caption after the visual refinement; if it is not the first one, `reread` reads it

Which device computes it, and how, is each backend's own. Shapes: n rows, T steps, X text positions.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from clip4str.core.driver import PredictAndRefine
from clip4str.core.errors import BackendError
from clip4str.core.reading import Decoding, Pass, Reading, Stats, check_finite

Further = Callable[[np.ndarray], np.ndarray]  # rows (r,) -> what they are now (r, ...), waited for


@dataclass(frozen=True)
class Passes:
    """Decoder passes before refinement. visual: 2 or more, the guess from the start token alone included, which is one
    where there is no draft; cross: 1 or more.

    Rows that need more get them in `resume`, which costs little more for many rows than for few, so a pass more for all
    rows rarely pays.
    """

    visual: int
    cross: int


# By benchmarks/drafts.py the visual branch of the bundled network settles 90 % of SVT's and CUTE80's words in three
# passes from the start token, and with its draft 82 % in one, 89 % in two.
FIRST = Passes(3, 2)
DRAFTED = Passes(2, 2)
RESUMED = Passes(6, 4)  # the words that are left take up to 18, most of them 6
MOST_RESUMED = 4  # times T: each time settles a position; a change of bucket may round a word back


class FixedPasses:
    """What lies in a row of results, and what is made of it.

    decoding.refine is 0 or 1. passes: None for FIRST, or with a draft DRAFTED.
    """

    decoding: Decoding
    passes: Passes | None

    @property
    @abstractmethod
    def steps(self) -> int:
        """T"""

    @property
    @abstractmethod
    def context(self) -> int:
        """X"""

    @property
    @abstractmethod
    def drafts(self) -> bool:
        """Does the visual branch begin with the draft head's word?"""

    @cached_property
    def columns(self) -> dict[str, slice]:
        """Where what lies in a row of results, all int32.

        ids, probs (bits of float32): the answer, T each. last: index of the last position of the visual word.
        unsettled, cross_unsettled: of the two branches. word, cross_word: the two branches' words before refinement, T
        each. Where captions are reread also keep: the last position of the cross_word; caption, refined: tokens before
        and after the visual refinement. ..._probs: of words before the answer, to be checked.
        """
        steps, context = self.steps, self.context
        widths = {"ids": steps, "probs": steps, "last": 1, "unsettled": 1, "word": steps, "word_probs": steps}
        if self.decoding.branch == "cross":
            widths |= {"cross_unsettled": 1, "cross_word": steps, "cross_probs": steps}
        if self.rereads:
            widths |= {"keep": 1, "caption": context, "refined": context, "refined_probs": steps}
        starts = [sum(list(widths.values())[:i]) for i in range(len(widths) + 1)]
        return {name: slice(a, b) for name, a, b in zip(widths, starts, starts[1:])}

    @property
    def width(self) -> int:
        """Columns of a row of results."""
        return max(column.stop for column in self.columns.values())

    @property
    def first_passes(self) -> Passes:
        """What every row gets."""
        return self.passes or (DRAFTED if self.drafts else FIRST)

    @property
    def rereads(self) -> bool:
        """Can the visual refinement change the caption?"""
        return self.decoding.branch == "cross" and self.decoding.refine > 0

    def open_rows(self, results: np.ndarray) -> np.ndarray:
        """Which rows of results (n, width) have not settled: (n,) bool."""
        flags = [results[:, place] for name, place in self.columns.items() if name.endswith("unsettled")]
        return np.asarray(np.concatenate(flags, axis=1).any(axis=1))

    def changed_rows(self, results: np.ndarray) -> np.ndarray:
        """Whose caption is another one after the visual refinement: (n,) bool."""
        if not self.rereads:
            return np.zeros(len(results), bool)
        return (results[:, self.columns["caption"]] != results[:, self.columns["refined"]]).any(axis=1)

    def check(self, results: np.ndarray) -> None:
        """Raises NonFiniteError where a decoder's probabilities in results (n, width) are no numbers."""
        last = "cross-modal" if self.decoding.branch == "cross" else "visual"
        passes = {"word_probs": "visual", "cross_probs": "cross-modal", "refined_probs": "visual", "probs": last}
        for name, decoder in passes.items():  # as they follow each other: where it began is said
            if name in self.columns:
                check_finite(np.ascontiguousarray(results[:, self.columns[name]]).view(np.float32), decoder)

    def stats(self, images: int, resumed: bool = False) -> Stats:
        """What a first run, or `resume`, of these images counts as."""
        how, passes = self.decoding, RESUMED if resumed else self.first_passes
        cross, in_order = how.branch == "cross", how.decode == "ar"
        return Stats(
            images=0 if resumed else images,
            batches=0 if resumed else 1,
            drafted=images if self.drafts and not resumed else 0,
            visual_passes=passes.visual if in_order else 1,
            cross_passes=(passes.cross if in_order else 1) if cross else 0,
            refine_passes=how.refine * (2 if cross else 1),
            text_calls=int(cross),
            captions=images * (1 + how.refine) if cross and not resumed else 0,
            captions_encoded=images if cross else 0,
        )

    def finished(self, driver: PredictAndRefine, results: np.ndarray, resume: Further, reread: Further) -> Reading:
        """The driver's answers of a first run's results (n, width), which are written over; rows that it left open are
        read further. resume(rows) gives (r, width), reread(rows) (r, 2 T): ids and the probabilities' bits.

        Raises NonFiniteError; BackendError where words never settle.
        """
        self.check(results)
        n, steps = len(results), self.steps
        stats = self.stats(n)
        for _ in range(MOST_RESUMED * steps):
            rows = np.flatnonzero(self.open_rows(results))
            if not len(rows):
                break
            results[rows] = resume(rows)
            self.check(results)
            stats.add(self.stats(len(rows), resumed=True))
        else:
            raise BackendError(f"{len(rows)} words change with every pass; the device's arithmetic is not repeatable")
        ids, probs = (results[:, self.columns[name]].copy() for name in ("ids", "probs"))
        rows = np.flatnonzero(self.changed_rows(results))
        if len(rows):
            again = reread(rows)
            ids[rows], probs[rows] = again[:, :steps], again[:, steps:]
            check_finite(probs.view(np.float32), "cross-modal")
            stats.add(Stats(refine_passes=1, text_calls=1, captions_encoded=len(rows)))
        lengths = np.full(n, steps)
        if self.decoding.refine == 0 and self.decoding.decode == "ar":
            lengths = results[:, self.columns["last"]][:, 0] + 1
        return driver.close(driver.cut(Pass(ids, probs.view(np.float32)), lengths), lengths, stats)
