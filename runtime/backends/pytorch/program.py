"""A word from its patches without the host: predict and refine with a number of passes fixed beforehand.

core/driver.py asks after every pass whether anything has changed; here nothing is asked, so that all of it is one
CUDA graph. Each row's answer comes with the two questions that were not asked, and where one of them turns out
badly the caller has the row read further (backend.py):

    unsettled    a branch's last pass still changed something: `resume` goes on from the words as they are
    refined      caption after the visual refinement; if it is not the first one, `reread` reads it

Shapes: N rows, T steps, X text positions, M memory tokens, h heads of size e, d = h e.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from clip4str.core.reading import Decoding, Stats, check_finite
from clip4str.kernels.collapse import collapse
from clip4str.kernels.decode_pass import Answer, DecoderWeights, decode_pass
from clip4str.kernels.tokenize import TokenizerTables, tokenize

from .towers import image_tower, key_value_view, memory_views, text_tower
from .weights import Weights


@dataclass(frozen=True)
class Passes:
    """Decoder passes before refinement. visual: 2 or more, the guess from the start token alone included, which is one
    where there is no draft; cross: 1 or more.

    Rows that need more get them in `resume`, which costs little more for many rows than for few, so a pass more for all
    rows rarely pays.
    """

    visual: int
    cross: int


# By benchmarks/drafts.py the visual branch of the bundled network settles 21 % of SVT's and CUTE80's words in three
# passes from the start token, and with a draft 74 % in one, 82 % in two.
FIRST = Passes(3, 2)
DRAFTED = Passes(2, 2)
RESUMED = Passes(6, 4)  # the words that are left take up to 18, most of them 6


@dataclass(frozen=True)
class Program:
    """The network and how to decode, ready to be run on any number of rows.

    tables: the device's tokenizer; None where decoding.branch is "visual". decoding.refine is 0 or 1. passes: None for
    FIRST, or with a draft DRAFTED.
    """

    weights: Weights
    tables: TokenizerTables | None
    decoding: Decoding
    passes: Passes | None = None

    @property
    def columns(self) -> dict[str, slice]:
        """Where what lies in a row of results, all int32.

        ids, probs (bits of float32): the answer, T each. last: index of the last position of the visual word.
        unsettled, cross_unsettled: of the two branches. word, cross_word: the two branches' words before refinement, T
        each. Where captions are reread also keep: the last position of the cross_word; caption, refined: tokens before
        and after the visual refinement. ..._probs: of words before the answer, to be checked.
        """
        c = self.weights.config
        widths = {"ids": c.steps, "probs": c.steps, "last": 1, "unsettled": 1, "word": c.steps, "word_probs": c.steps}
        if self.decoding.branch == "cross":
            widths |= {"cross_unsettled": 1, "cross_word": c.steps, "cross_probs": c.steps}
        if self.rereads:
            widths |= {"keep": 1, "caption": c.context, "refined": c.context, "refined_probs": c.steps}
        starts = [sum(list(widths.values())[:i]) for i in range(len(widths) + 1)]
        return {name: slice(a, b) for name, a, b in zip(widths, starts, starts[1:])}

    @property
    def width(self) -> int:
        """Columns of a row of results."""
        return max(column.stop for column in self.columns.values())

    @property
    def drafts(self) -> bool:
        """Does the visual branch begin with the draft head's word?"""
        return self.weights.image.draft is not None and self.decoding.draft and self.decoding.decode == "ar"

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
        """What `run`, or `resume`, of these images counts as."""
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

    def run(self, patches: Tensor, kv: Tensor | None = None, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """patches (N, *patch_shape) -> results (N, width) int32, keys and values (N, M, 2 d or 4 d).

        kv, out: where to write them.
        """
        kv, draft = image_tower(self.weights.image, patches, out=kv, drafts=self.drafts)
        visual, (visual_kv, _) = self.weights.visual, memory_views(kv, self.weights)
        passes = self.first_passes
        if draft is not None:
            word = _passes(passes.visual, visual, collapse(draft, self.weights.config.steps), visual_kv)
        else:
            word = decode_pass(visual, None, visual_kv, mode="start")
            if self.decoding.decode == "ar":
                word = _passes(passes.visual - 1, visual, word.ids, visual_kv)
        return self._after(kv, word, word.ids, passes.cross, out), kv

    def resume(self, results: Tensor, kv: Tensor, rows: Tensor) -> Tensor:
        """Decodes `rows` (R,) int64 further, from the words in `results`, which are replaced. Returns them, (R, width).

        Any guess leads to the same word, and each pass settles at least one more position.
        """
        place, chosen = self.columns, results.index_select(0, rows)
        kv = kv.index_select(0, rows)
        visual_kv, _ = memory_views(kv, self.weights)
        word = _passes(RESUMED.visual, self.weights.visual, chosen[:, place["word"]].contiguous(), visual_kv)
        guess = chosen[:, place["cross_word"]].contiguous() if "cross_word" in place else word.ids
        found = self._after(kv, word, guess, RESUMED.cross)
        results.index_copy_(0, rows, found)
        return found

    def reread(self, results: Tensor, kv: Tensor, rows: Tensor, out: Tensor | None = None) -> Tensor:
        """The refined captions of `rows` (R,) int64, and with them the cross-modal refinement anew.

        Returns (R, 2 T) int32: ids and the probabilities' bits.
        """
        place, chosen = self.columns, results.index_select(0, rows)
        cross = kv.unflatten(-1, (self.weights.decoders, -1))[:, :, 1].index_select(0, rows)  # [R, M, 2 d]
        word, keep, caption = (chosen[:, place[name]].contiguous() for name in ("cross_word", "keep", "refined"))
        memory = key_value_view(cross, self._cross.heads), self._text(caption)
        answer = decode_pass(self._cross, word, *memory, mode="cloze", keep=keep[:, 0])
        return torch.cat(list(_spelled(answer).values()), dim=1, out=out)

    def _after(self, kv: Tensor, word: Answer, guess: Tensor, passes: int, out: Tensor | None = None) -> Tensor:
        """All that follows the visual word: results (N, width). guess (N, T) int32: the cross-modal branch's."""
        w, how, cross = self.weights, self.decoding, self.decoding.branch == "cross"
        visual_kv, cross_kv = memory_views(kv, w)
        found = {"last": word.last[:, None], "unsettled": word.unsettled[:, None], "word": word.ids}
        found["word_probs"] = word.probs.view(torch.int32)
        answer = word
        if cross:
            found["caption"] = self._tokens(word.ids)
            memory = cross_kv, self._text(found["caption"])
            if how.decode == "ar":
                answer = _passes(passes, self._cross, guess, *memory, limit=word.last)
            else:
                answer = decode_pass(self._cross, None, *memory, mode="start")
            found |= {"cross_unsettled": answer.unsettled[:, None], "cross_word": answer.ids}
            found["cross_probs"] = answer.probs.view(torch.int32)
        if how.refine:
            refined = decode_pass(w.visual, word.ids, visual_kv, mode="cloze", keep=word.last)
            if cross:
                found |= {"keep": answer.last[:, None], "refined": self._tokens(refined.ids)}
                found["refined_probs"] = refined.probs.view(torch.int32)
                refined = decode_pass(self._cross, answer.ids, *memory, mode="cloze", keep=answer.last)
            answer = refined
        found |= _spelled(answer)
        return torch.cat([found[name] for name in self.columns], dim=1, out=out)

    @property
    def _cross(self) -> DecoderWeights:
        assert self.weights.cross is not None, "packed for the visual branch alone"
        return self.weights.cross

    def _tokens(self, ids: Tensor) -> Tensor:
        assert self.tables is not None, "branch 'cross' needs the device's tokenizer"
        return tokenize(self.tables, ids)

    def _text(self, bpe: Tensor) -> Tensor:
        assert self.weights.text is not None, "packed for the visual branch alone"
        return key_value_view(text_tower(self.weights.text, bpe), self._cross.heads)


def _passes(
    count: int,
    decoder: DecoderWeights,
    ids: Tensor,
    memory: Tensor,
    text: Tensor | None = None,
    limit: Tensor | None = None,
) -> Answer:
    """`count` passes towards the greedy word, at least one, from a guess (N, T) int32."""
    for _ in range(count):
        answer = decode_pass(decoder, ids, memory, text, mode="causal", limit=limit)
        ids = answer.ids
    return answer


def _spelled(answer: Answer) -> dict[str, Tensor]:
    return {"ids": answer.ids, "probs": answer.probs.view(torch.int32)}
