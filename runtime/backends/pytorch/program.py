"""A word from its patches without the host: predict and refine with a number of passes fixed beforehand.

What is asked of its results afterwards, and how rows are read further: fixed_passes.py.

Shapes: N rows, T steps, X text positions, M memory tokens, h heads of size e, d = h e.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from clip4str.core.errors import BackendError
from clip4str.core.reading import Decoding
from clip4str.kernels.collapse import collapse
from clip4str.kernels.decode_pass import Answer, DecoderWeights, decode_pass
from clip4str.kernels.options import options
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
            word = self._visual_word(passes.visual, collapse(draft, self.weights.config.steps), visual_kv)
        else:
            start = decode_pass(visual, None, visual_kv, mode="start")
            in_order = self.decoding.decode == "ar"
            word = self._visual_word(passes.visual - 1, start, visual_kv) if in_order else Word.of(start)
        return self._after(kv, word, word.ids, passes.cross, out), kv

    def resume(self, results: Tensor, kv: Tensor, rows: Tensor) -> Tensor:
        """Decodes `rows` (R,) int64 further, from the words in `results`, which are replaced. Returns them, (R, width).

        Any guess leads to the same word, and each pass settles at least one more position.
        """
        place, chosen = self.columns, results.index_select(0, rows)
        kv = kv.index_select(0, rows)
        visual_kv, _ = memory_views(kv, self.weights)
        word = self._visual_word(RESUMED.visual, chosen[:, place["word"]].contiguous(), visual_kv)
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

    def _visual_word(self, count: int, guess: Tensor | Answer, memory: Tensor) -> Word:
        follows = self.decoding.refine > 0 or self.decoding.branch == "cross"
        return _decoded(count, self.weights.visual, guess, memory, follows=follows)

    def _after(self, kv: Tensor, word: Word, guess: Tensor, passes: int, out: Tensor | None = None) -> Tensor:
        """All that follows the visual word: results (N, width). guess (N, T) int32: the cross-modal branch's."""
        w, how, cross = self.weights, self.decoding, self.decoding.branch == "cross"
        visual_kv, cross_kv = memory_views(kv, w)
        found: dict[str, Tensor] = {}

        def refine() -> tuple[Answer, Tensor | None]:
            refined = decode_pass(w.visual, word.ids, visual_kv, mode="cloze", keep=word.last)
            return refined, self._tokens(refined.ids) if cross else None

        decided = word
        refinement = beside(refine, kv.device) if how.refine else None
        if cross:
            found["caption"] = self._tokens(word.ids)
            memory = cross_kv, self._text(found["caption"])
            if how.decode == "ar":
                follows = how.refine > 0
                decided = _decoded(passes, self._cross, guess, *memory, limit=word.last, follows=follows)
            else:
                decided = Word.of(decode_pass(self._cross, None, *memory, mode="start"))
        refined = None
        if refinement is not None:
            refined, tokens = refinement()
            if tokens is not None:
                found |= {"refined": tokens, "refined_probs": refined.probs.view(torch.int32)}
                refined = decode_pass(self._cross, decided.ids, *memory, mode="cloze", keep=decided.last)
        visual = answer = word.checked()
        found |= {"last": visual.last[:, None], "unsettled": visual.unsettled[:, None], "word": visual.ids}
        found["word_probs"] = visual.probs.view(torch.int32)
        if cross:
            answer = decided.checked()
            found |= {"cross_unsettled": answer.unsettled[:, None], "cross_word": answer.ids}
            found |= {"cross_probs": answer.probs.view(torch.int32), "keep": answer.last[:, None]}
        found |= _spelled(answer if refined is None else refined)
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


@dataclass(frozen=True)
class Word:
    """A branch's word. found: what follows begins with it. checked: the last pass's answer, which shows by `unsettled`
    whether that was the final one; to be asked for once, behind all that follows."""

    found: Answer
    checked: Callable[[], Answer]

    @classmethod
    def of(cls, answer: Answer) -> Word:
        """Of the last pass itself."""
        return cls(answer, lambda: answer)

    @property
    def ids(self) -> Tensor:
        return self.found.ids

    @property
    def last(self) -> Tensor:
        return self.found.last


def _decoded(
    count: int,
    decoder: DecoderWeights,
    guess: Tensor | Answer,
    memory: Tensor,
    text: Tensor | None = None,
    *,
    limit: Tensor | None = None,
    follows: bool,
) -> Word:
    """`count` passes, at least one, towards the greedy word from a guess: ids (N, T) int32, or a pass's answer.

    Where something `follows` and options() say so, it begins with the word of the pass before the last one, which runs
    beside it. There the id at `last` counts, too: where the last pass moves the end alone its word is settled, and yet
    not the one that was gone on with.
    """
    if count < 1:
        raise BackendError(f"{count} passes towards a word that was guessed: at least one confirms it")

    def further(guess: Tensor | Answer, through_last: bool = False) -> Answer:
        ids = guess.ids if isinstance(guess, Answer) else guess
        return decode_pass(decoder, ids, memory, text, mode="causal", limit=limit, through_last=through_last)

    for _ in range(count - 1):
        guess = further(guess)
    if follows and options().verify_beside and isinstance(guess, Answer):
        return Word(guess, beside(partial(further, guess, through_last=True), memory.device))
    return Word.of(further(guess))


def _spelled(answer: Answer) -> dict[str, Tensor]:
    return {"ids": answer.ids, "probs": answer.probs.view(torch.int32)}
