"""What predict and refine works with: the stages it calls, how to decode, the answer and what it took.

Shapes: N images, T = 26 steps (longest word + 1), S <= T content positions, C classes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, Protocol

import numpy as np

from .errors import NonFiniteError, UsageError
from .masks import Rule

MOST_ROUNDS = 16  # of refinement; the published number is 1, and words stop changing after a few


NO_WORD = "\N{REPLACEMENT CHARACTER}"  # stands in reports for what a network without finite outputs reads


class Pass(NamedTuple):
    """What one decoder pass returns: ids (N, T) int, probs (N, T) float32 of those ids, and, where the backend
    gives them, logits (N, T, C) in the backend's own array type."""

    ids: np.ndarray
    probs: np.ndarray
    logits: Any = None


def check_finite(probs: np.ndarray, stage: str) -> None:
    """Raises NonFiniteError where the probabilities (N, T) of a pass are no numbers: its ids mean nothing then."""
    if not np.isfinite(probs).all():
        raise NonFiniteError(
            f"the {stage} decoder's output is not finite (NaN or infinity): weights are damaged, or numbers too large "
            "for this precision (float16 ends at 65504): a bundle of float32, or on torch dtype bfloat16, can tell"
        )


class Stages(Protocol):
    """The network in four functions. Keys and values are opaque to the driver but for indexing by rows.

    tokens are the content that a pass's Rule speaks of, N x S with the start token first; rule.mask(S) is that rule as
    an array, for stages that want one.
    """

    flexible_steps: bool  # may S and T be smaller than 26, and N shrink? (not under fixed-shape engines)

    @abstractmethod
    def image(self, pixels: Any) -> tuple[Any, ...]:
        """pixels (N, 3, H, W) -> memory keys and values for the visual and for the cross-modal decoder; where the
        network has a draft head also the id that each of its frames shows, (N, F) int, see drafts.py"""

    @abstractmethod
    def visual(self, tokens: np.ndarray, rule: Rule, visual_kv: Any) -> Pass:
        """tokens (N, S) int32 -> one pass of the visual decoder, of T = rule.queries positions"""

    @abstractmethod
    def text(self, bpe: np.ndarray) -> Any:
        """bpe (N, 16) int32 -> text keys and values, indexable by row"""

    @abstractmethod
    def cross(self, tokens: np.ndarray, rule: Rule, cross_kv: Any, text_kv: Any) -> Pass:
        """One pass of the cross-modal decoder."""

    @abstractmethod
    def stack(self, rows: Sequence[Any]) -> Any:
        """Rows of `text` back into a batch."""


@dataclass(frozen=True)
class Decoding:
    """How to decode. The defaults are the published ones.

    decode: "ar" (greedy, left to right) or "nar" (one pass from the start token alone).
    refine: how many rounds of cloze refinement; the cross-modal branch rereads the refined word each round.
    branch: "cross" (both branches) or "visual" (no text tower at all).
    draft: start from the draft head's word where the network has one and decode is "ar": the same words, in fewer
    passes; False is for comparing the two.
    """

    decode: str = "ar"
    refine: int = 1
    branch: str = "cross"
    draft: bool = True

    def __post_init__(self) -> None:
        if self.decode not in ("ar", "nar"):
            raise UsageError(f"decode is 'ar' or 'nar', not {self.decode!r}")
        if self.branch not in ("cross", "visual"):
            raise UsageError(f"branch is 'cross' or 'visual', not {self.branch!r}")
        if not isinstance(self.refine, int) or isinstance(self.refine, bool) or not 0 <= self.refine <= MOST_ROUNDS:
            raise UsageError(f"refine is a number of rounds, 0 to {MOST_ROUNDS}, not {self.refine!r}")


@dataclass
class Stats:
    """Counts since the last reset; one pass serves a whole batch."""

    images: int = 0
    batches: int = 0
    drafted: int = 0  # images whose visual branch began with the draft head's word
    visual_passes: int = 0
    cross_passes: int = 0
    refine_passes: int = 0
    text_calls: int = 0
    captions: int = 0
    captions_encoded: int = 0

    def add(self, other: Stats) -> None:
        for f in fields(self):
            setattr(self, f.name, getattr(self, f.name) + getattr(other, f.name))


@dataclass
class Reading:
    """The answer for a batch: ids (N, T), end token (0) from the word's end on; probs (N, T), 1 after the end
    token; logits of the deciding pass as the backend gave them; its text passes and decoder passes in stats."""

    ids: np.ndarray
    probs: np.ndarray
    logits: Any
    steps_run: np.ndarray  # (N,): positions the deciding pass stands for, T after a refinement
    stats: Stats = field(default_factory=Stats)

    @classmethod
    def joined(cls, readings: Sequence[Reading]) -> Reading:
        """One of several batches, without logits; a single one as it is."""
        if len(readings) == 1:
            return readings[0]
        stats = Stats()
        for reading in readings:
            stats.add(reading.stats)
        ids, probs, steps_run = (
            np.concatenate([getattr(reading, name) for reading in readings]) for name in ("ids", "probs", "steps_run")
        )
        return cls(ids, probs, None, steps_run, stats)

    @property
    def confidence(self) -> np.ndarray:
        """Product of the probabilities up to and including the end token, (N,)."""
        return self.probs.prod(axis=1)
