"""A word from its patches without the host: predict and refine with a number of passes fixed beforehand.

What is asked of its results afterwards, and how rows are read further: fixed_passes.py.

Shapes: N rows, T steps, X text positions, M memory tokens, h heads of size e, d = h e.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from clip4str.core.reading import Decoding
from clip4str.kernels.collapse import collapse
from clip4str.kernels.decode_pass import Answer, DecoderWeights, decode_pass
from clip4str.kernels.tokenize import TokenizerTables, tokenize

from ..fixed_passes import RESUMED, FixedPasses, Passes
from .beside import beside
from .towers import image_tower, key_value_view, memory_views, text_tower
from .weights import Weights


@dataclass(frozen=True)
class Program(FixedPasses):
    """The network and how to decode, ready to be run on any number of rows.

    tables: the device's tokenizer; None where decoding.branch is "visual". decoding.refine is 0 or 1.
    """

    weights: Weights
    tables: TokenizerTables | None
    decoding: Decoding
    passes: Passes | None = None

    @property
    def steps(self) -> int:
        return self.weights.config.steps

    @property
    def context(self) -> int:
        return self.weights.config.context

    @property
    def drafts(self) -> bool:
        return self.weights.image.draft is not None and self.decoding.draft and self.decoding.decode == "ar"

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

        def refine() -> tuple[Answer, Tensor | None]:
            refined = decode_pass(w.visual, word.ids, visual_kv, mode="cloze", keep=word.last)
            return refined, self._tokens(refined.ids) if cross else None

        refinement = beside(refine, kv.device) if how.refine else None
        if cross:
            found["caption"] = self._tokens(word.ids)
            memory = cross_kv, self._text(found["caption"])
            if how.decode == "ar":
                answer = _passes(passes, self._cross, guess, *memory, limit=word.last)
            else:
                answer = decode_pass(self._cross, None, *memory, mode="start")
            found |= {"cross_unsettled": answer.unsettled[:, None], "cross_word": answer.ids}
            found["cross_probs"] = answer.probs.view(torch.int32)
        if refinement is not None:
            refined, tokens = refinement()
            if tokens is not None:
                found |= {"keep": answer.last[:, None], "refined": tokens}
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
