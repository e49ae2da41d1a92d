"""Predict and refine, once, for every backend: a handful of calls of four stage functions.

Greedy autoregression in a decoder whose output at i depends on tokens before i alone has exactly one fixed point,
the greedy word itself. So all positions are guessed at once, decoded in one parallel pass, the predictions put
back in, until nothing before the end token changes. Every pass settles at least one more position for good, so
the answer is exactly the step-by-step one after at most T passes, in practice 2 to 5. Any guess leads to that one
word, a good one sooner: networks with a draft head (model/draft.py) have one for the visual branch.

Shapes: N images, T = 26 steps (longest word + 1), S <= T content positions, C classes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from .bpe import BytePairTokenizer
from .caption_cache import CaptionCache
from .drafts import collapse
from .masks import Rule
from .reading import Decoding, Pass, Reading, Stages, Stats, check_finite
from .text import END, Charset, first_end


@dataclass(frozen=True)
class _Decoder:
    """A decoder stage over a batch's memory."""

    name: str
    stage: Callable[..., Pass]
    memory: tuple[Any, ...]

    def __call__(self, tokens: np.ndarray, rule: Rule) -> Pass:
        out = self.stage(tokens, rule, *self.memory)
        check_finite(out.probs, self.name)
        return out

    def rows(self, index: list[int]) -> _Decoder:
        """The same over some of the rows."""
        return _Decoder(self.name, self.stage, tuple(kv[index] for kv in self.memory))


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

    def __call__(self, stages: Stages, pixels: Any, full_logits: bool = False) -> Reading:
        """Read a batch.

        pixels: whatever `stages.image` takes. full_logits: compute the deciding pass for every row at all T positions
        although the word is shorter (Reading.logits then is (N, T, C); narrower if refine is 0).

        Raises NonFiniteError, and what the stages raise.
        """
        stats, how, n = Stats(batches=1, images=len(pixels)), self.decoding, len(pixels)
        visual_kv, cross_kv, *drafts = stages.image(pixels)
        cross, compact = how.branch == "cross", stages.flexible_steps and not full_logits
        visual = _Decoder("visual", stages.visual, (visual_kv,))
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
            reread = _Decoder("cross-modal", stages.cross, (cross_kv, text_kv))
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
                reread = _Decoder("cross-modal", stages.cross, (cross_kv, text_kv))
                answer = self._refine(reread, answer.ids, lengths, stages, stats, full)
            else:
                answer = self._refine(visual, answer.ids, lengths, stages, stats, full)
            lengths = np.full(n, self.steps)
        return self.close(answer, lengths, stats)

    def _guess(self, decode: _Decoder, n: int, stages: Stages) -> Pass:
        """Every position from the start token alone: exact for position 0, a guess for the rest."""
        content = 1 if stages.flexible_steps else self.steps
        none = np.zeros((n, self.steps), np.int64)
        return decode(self._tokens(none, content), Rule("start", none[:, 0], self.steps))

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
            out = decode(self._tokens(before, width), Rule("causal", visible, width))
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
            out = decode(self._tokens(ids, content), Rule("cloze", keep, width))
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
