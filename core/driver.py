"""Predict and refine, once, for every backend: a handful of calls of four stage functions.

Greedy autoregression in a decoder whose output at i depends on tokens before i alone has exactly one fixed point,
the greedy word itself. So all positions are guessed at once, decoded in one parallel pass, the predictions put
back in, until nothing before the end token changes. Every pass settles at least one more position for good, so
the answer is exactly the step-by-step one after at most T passes, in practice 2 to 5. Any guess leads to that one
word, a good one sooner: networks with a draft head (model/draft.py) have one for the visual branch.

Shapes: N images, T = 26 steps (longest word + 1), S <= T content positions, C classes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields
from typing import Any, NamedTuple, Protocol

import numpy as np

from .bpe import BytePairTokenizer
from .caption_cache import CaptionCache
from .drafts import collapse
from .errors import UsageError
from .masks import Sight, masks
from .text import END, Charset, first_end


class Pass(NamedTuple):
    """What one decoder pass returns: ids (N, T) int, probs (N, T) float32 of those ids, and, where the backend
    gives them, logits (N, T, C) in the backend's own array type."""

    ids: np.ndarray
    probs: np.ndarray
    logits: Any = None


class Stages(Protocol):
    """The network in four functions. Keys and values are opaque to the driver but for indexing by rows.

    Stages that have `sees_modes`, true, get a Sight in place of every mask.
    """

    flexible_steps: bool  # may S and T be smaller than 26, and N shrink? (not under fixed-shape engines)

    def image(self, pixels: Any) -> tuple[Any, ...]:
        """pixels (N, 3, H, W) -> memory keys and values for the visual and for the cross-modal decoder; where the
        network has a draft head also the id that each of its frames shows, (N, F) int, see drafts.py"""

    def visual(self, tokens: np.ndarray, attend: np.ndarray, visual_kv: Any) -> Pass:
        """tokens (N, S) int32, attend (N, T, S) bool -> one pass of the visual decoder"""

    def text(self, bpe: np.ndarray) -> Any:
        """bpe (N, 16) int32 -> text keys and values, indexable by row"""

    def cross(self, tokens: np.ndarray, attend: np.ndarray, cross_kv: Any, text_kv: Any) -> Pass:
        """One pass of the cross-modal decoder."""

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
        if not isinstance(self.refine, int) or self.refine < 0:
            raise UsageError(f"refine is a number of rounds, 0 or more, not {self.refine!r}")


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


@dataclass(frozen=True)
class _Decoder:
    """A decoder stage over a batch's memory."""

    stage: Callable[..., Pass]
    memory: tuple[Any, ...]

    def __call__(self, tokens: np.ndarray, attend: np.ndarray) -> Pass:
        return self.stage(tokens, attend, *self.memory)

    def rows(self, index: list[int]) -> _Decoder:
        """The same over some of the rows."""
        return _Decoder(self.stage, tuple(kv[index] for kv in self.memory))


class PredictAndRefine:
    """The order in which CLIP4STR calls its parts. Holds no arrays but the caption cache."""

    def __init__(
        self,
        charset: Charset,
        tokenizer: BytePairTokenizer,
        steps: int = 26,
        decoding: Decoding | None = None,
        cache: CaptionCache | None = None,
    ) -> None:
        self.charset, self.tokenizer, self.steps = charset, tokenizer, steps
        self.decoding = decoding or Decoding()
        self.cache = CaptionCache(0) if cache is None else cache
        self._masks = masks(steps)

    def __call__(self, stages: Stages, pixels: Any, full_logits: bool = False) -> Reading:
        """Read a batch.

        pixels: whatever `stages.image` takes. full_logits: compute the deciding pass for every row at all T positions
        although the word is shorter (Reading.logits then is (N, T, C); narrower if refine is 0).
        """
        stats, how, n = Stats(batches=1, images=len(pixels)), self.decoding, len(pixels)
        visual_kv, cross_kv, *drafts = stages.image(pixels)
        cross, compact = how.branch == "cross", stages.flexible_steps and not full_logits
        visual = _Decoder(stages.visual, (visual_kv,))
        in_order = how.decode == "ar"
        if in_order and how.draft and drafts:
            stats.drafted += n
            guess, most_passes = collapse(drafts[0], self.steps, len(self.charset.characters)), self.steps
        else:
            last = self._guess(visual, n, stages)
            stats.visual_passes += 1
            guess, most_passes = last.ids, self.steps - 1  # exact for position 0: one pass less to go
        if in_order:
            last, passes = self._fixed_point(visual, guess, np.full(n, self.steps), stages, most_passes, compact)
            stats.visual_passes += passes
        words = last.ids
        # Steps that the published loop has run when it stops; one parallel pass always runs all of them.
        lengths = np.full(n, self.steps)
        if in_order:
            lengths = np.minimum(first_end(words) + 1, self.steps)
        if cross:
            text_kv, captions = self._text(stages, words, {}, stats)
            reread = _Decoder(stages.cross, (cross_kv, text_kv))
            if in_order:
                # From the settled visual word: both branches mostly agree, and no draft is nearer.
                last, passes = self._fixed_point(reread, words, lengths, stages, self.steps, compact)
                stats.cross_passes += passes
            else:
                last = self._guess(reread, n, stages)
                stats.cross_passes += 1
            answer = self.cut(last, lengths)
        else:
            answer = last
        for round_ in range(how.refine):
            full = full_logits and round_ == how.refine - 1
            if cross:
                words = self._refine(visual, words, lengths, stages, stats, full=False).ids
                text_kv, captions = self._text(stages, words, captions, stats)
                reread = _Decoder(stages.cross, (cross_kv, text_kv))
                answer = self._refine(reread, answer.ids, lengths, stages, stats, full)
            else:
                answer = self._refine(visual, answer.ids, lengths, stages, stats, full)
            lengths = np.full(n, self.steps)
        return self.close(answer, lengths, stats)

    def _guess(self, decode: _Decoder, n: int, stages: Stages) -> Pass:
        """Every position from the start token alone: exact for position 0, a guess for the rest."""
        content = 1 if stages.flexible_steps else self.steps
        none = np.zeros((n, self.steps), np.int64)
        return decode(self._tokens(none, content), self._attend("start", none[:, 0], self.steps, content, stages))

    def _fixed_point(
        self,
        decode: _Decoder,
        ids: np.ndarray,
        limits: np.ndarray,
        stages: Stages,
        most_passes: int,
        compact: bool,
    ) -> tuple[Pass, int]:
        """Greedy autoregression from a guess. Row r decodes exactly limits[r] steps: (N,) int, at most T.

        Positions past a row's first end token or limit are no part of the answer. compact: go on with the unsettled
        rows alone once they are the fewer (the logits returned are then of those).
        """
        ids, probs, rows = ids.copy(), np.ones(ids.shape, np.float32), np.arange(len(ids))
        for passes in range(1, max(1, most_passes) + 1):  # noqa: B007  (returned: the stats count them)
            before, limit = ids[rows], limits[rows]
            width = self._width(before, stages, int(limit.max()))
            visible = np.full(len(rows), width - 1)
            out = decode(self._tokens(before, width), self._attend("causal", visible, width, width, stages))
            after = before.copy()
            after[:, :width] = out.ids
            ids[rows], probs[rows, :width] = after, out.probs
            # Position i was computed from `before` up to i - 1, so it holds if those did not change.
            needed = np.minimum(first_end(after), limit - 1)
            settled = ((before == after) | (np.arange(self.steps) >= needed[:, None])).all(axis=1) & (needed < width)
            if settled.all():
                break
            if compact and settled.sum() * 2 > len(rows):
                left = np.flatnonzero(~settled)
                rows, decode = rows[left], decode.rows(left.tolist())
        return Pass(ids, probs, out.logits), passes

    def _refine(
        self,
        decode: _Decoder,
        ids: np.ndarray,
        lengths: np.ndarray,
        stages: Stages,
        stats: Stats,
        full: bool,
    ) -> Pass:
        """One cloze pass over `[start] + ids[:lengths - 1]` before its end token: every position is predicted anew."""
        keep = np.minimum(first_end(ids), lengths - 1)
        width = self.steps if full else self._width(ids, stages, self.steps)
        while True:
            content = int(keep.max()) + 1 if stages.flexible_steps else self.steps
            out = decode(self._tokens(ids, content), self._attend("cloze", keep, width, content, stages))
            stats.refine_passes += 1
            if width == self.steps or (first_end(out.ids) < width).all():
                break
            width = self.steps  # a word grew past the positions computed
        refined = np.zeros(ids.shape, np.int64)
        probs = np.ones(ids.shape, np.float32)
        refined[:, :width], probs[:, :width] = out.ids, out.probs
        return Pass(refined, probs, out.logits)

    def _width(self, ids: np.ndarray, stages: Stages, most: int) -> int:
        """Positions worth computing: up to the longest word's end token and one more, where shapes are free."""
        if not stages.flexible_steps:
            return self.steps
        return min(int(first_end(ids).max()) + 2, most, self.steps)

    def _tokens(self, ids: np.ndarray, content: int) -> np.ndarray:
        """`[start] + predictions`, cut to `content` positions: (N, S) int32."""
        start = np.full((len(ids), 1), self.charset.start, ids.dtype)
        return np.concatenate((start, ids[:, : content - 1]), axis=1).astype(np.int32)

    def _attend(self, mode: str, keep: np.ndarray, width: int, content: int, stages: Stages) -> Any:
        """The mask's first rows and columns; content past keep[r] hidden from row r: (N, T, S) bool, or a Sight."""
        if getattr(stages, "sees_modes", False):
            return Sight(mode, keep)
        seen = np.arange(content) <= keep[:, None]
        return self._masks[mode][None, :width, :content] & seen[:, None, :]

    def _text(
        self, stages: Stages, words: np.ndarray, known: dict[str, Any], stats: Stats
    ) -> tuple[Any, dict[str, Any]]:
        """Text keys and values of every row's caption. `known`: those of this batch's earlier captions."""
        captions = [self.charset.caption(row) for row in words]
        rows = {c: known.get(c) for c in captions}
        for caption, row in rows.items():
            if row is None:
                rows[caption] = self.cache.get(caption)
        missing = [c for c, row in rows.items() if row is None]
        if missing:
            features = stages.text(self.tokenizer(missing))
            stats.text_calls += 1
            for i, caption in enumerate(missing):
                row = stages.stack([features[i]])[0]  # its own memory: a slice would keep the whole batch
                rows[caption] = row
                self.cache.put(caption, row)
        stats.captions += len(captions)
        stats.captions_encoded += len(missing)
        return stages.stack([rows[c] for c in captions]), {**known, **rows}

    def cut(self, last: Pass, lengths: np.ndarray) -> Pass:
        """The cross-modal branch may not run past the visual branch's length: whatever follows is an end token."""
        past = np.arange(self.steps) >= lengths[:, None]
        return Pass(np.where(past, END, last.ids), np.where(past, 1, last.probs).astype(np.float32), last.logits)

    def close(self, answer: Pass, lengths: np.ndarray, stats: Stats) -> Reading:
        """The answer with nothing behind its end token. lengths: positions that its pass stands for, (N,)."""
        past = np.arange(self.steps) > first_end(answer.ids)[:, None]
        ids = np.where(past, END, answer.ids)
        probs = np.where(past, 1, answer.probs).astype(np.float32)
        return Reading(ids, probs, answer.logits, lengths, stats)
