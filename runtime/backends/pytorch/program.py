"""A word from its patches without the host: predict and refine with a number of passes fixed beforehand.

runtime/driver.py asks after every pass whether anything has changed; here nothing is asked, so that all of it is one
CUDA graph. Each row's answer comes with the two questions that were not asked, and where one of them turns out
badly the caller has the row read again (reader.py):

    unsettled    a branch's last pass still changed something: the driver goes on from the row's keys and values
    refined      caption after the visual refinement; if it is not the first one, `reread` reads it

Shapes: N rows, T steps, X text positions, M memory tokens, h heads of size e, d = h e.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from clip4str.kernels.decode_pass import Answer, DecoderWeights, decode_pass
from clip4str.kernels.tokenize import TokenizerTables, tokenize

from ...driver import Decoding, Stats
from .towers import image_tower, key_value_view, memory_views, text_tower
from .weights import Weights

FEW_ROWS = 8


@dataclass(frozen=True)
class Passes:
    """Decoder passes before refinement. visual: the start guess included, 2 or more; cross: 1 or more.

    A row that needs more is still read right, only slower. Every row of a batch must have settled for the batch to be
    done in one go, so larger batches get a pass more by default: `of(rows)`.
    """

    visual: int
    cross: int

    @staticmethod
    def of(rows: int) -> Passes:
        return Passes(3, 2) if rows <= FEW_ROWS else Passes(4, 3)


@dataclass(frozen=True)
class Program:
    """The network and how to decode, ready to be run on any number of rows.

    tables: the device's tokenizer; None where decoding.branch is "visual". passes: None for Passes.of(rows).
    decoding.refine is 0 or 1.
    """

    weights: Weights
    tables: TokenizerTables | None
    decoding: Decoding
    passes: Passes | None = None

    @property
    def columns(self) -> dict[str, slice]:
        """Where what lies in a row of results, all int32.

        ids, probs (bits of float32): the answer, T each. last: index of the last position of the visual word.
        unsettled, cross_unsettled: of the two branches. Where captions are reread also draft and keep: the cross
        branch's word and its last position; caption, refined: tokens before and after the visual refinement.
        """
        c = self.weights.config
        widths = {"ids": c.steps, "probs": c.steps, "last": 1, "unsettled": 1}
        if self.decoding.branch == "cross":
            widths["cross_unsettled"] = 1
        if self.rereads:
            widths |= {"draft": c.steps, "keep": 1, "caption": c.context, "refined": c.context}
        starts = [sum(list(widths.values())[:i]) for i in range(len(widths) + 1)]
        return {name: slice(a, b) for name, a, b in zip(widths, starts, starts[1:])}

    @property
    def width(self) -> int:
        """Columns of a row of results."""
        return max(column.stop for column in self.columns.values())

    @property
    def rereads(self) -> bool:
        """Can the visual refinement change the caption?"""
        return self.decoding.branch == "cross" and self.decoding.refine > 0

    def passes_of(self, rows: int) -> Passes:
        return self.passes or Passes.of(rows)

    def stats(self, images: int, rows: int) -> Stats:
        """What `run` counts as for a batch of images that was run as `rows`."""
        how, passes = self.decoding, self.passes_of(rows)
        cross, in_order = how.branch == "cross", how.decode == "ar"
        return Stats(
            images=images,
            batches=1,
            visual_passes=passes.visual if in_order else 1,
            cross_passes=(passes.cross if in_order else 1) if cross else 0,
            refine_passes=how.refine * (2 if cross else 1),
            text_calls=int(cross),
            captions=images * (1 + how.refine) if cross else 0,
            captions_encoded=images if cross else 0,
        )

    def memory(self, kv: Tensor) -> tuple[Tensor, Tensor]:
        """Views (N, 2, h, M, e) of the image tower's output: the visual and the cross-modal decoder's.

        The same one twice for a network packed for the visual branch alone.
        """
        return memory_views(kv, self.weights)

    def run(self, patches: Tensor, kv: Tensor | None = None, out: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """patches (N, *patch_shape) -> results (N, width) int32, keys and values (N, M, 2 d or 4 d).

        kv, out: where to write them.
        """
        w, how, cross = self.weights, self.decoding, self.decoding.branch == "cross"
        kv = image_tower(w.image, patches, out=kv)
        visual_kv, cross_kv = self.memory(kv)
        passes = self.passes_of(len(patches))
        answer = word = decode_pass(w.visual, None, visual_kv, mode="start")
        if how.decode == "ar":
            for _ in range(passes.visual - 1):
                answer = word = decode_pass(w.visual, word.ids, visual_kv, mode="causal")
        found = {"last": word.last[:, None], "unsettled": word.unsettled[:, None]}
        if cross:
            found["caption"] = self._tokens(word.ids)
            memory = cross_kv, self._text(found["caption"])
            if how.decode == "ar":
                for _ in range(passes.cross):
                    answer = decode_pass(self._cross, answer.ids, *memory, mode="causal", limit=word.last)
            else:
                answer = decode_pass(self._cross, None, *memory, mode="start")
            found["cross_unsettled"] = answer.unsettled[:, None]
        if how.refine:
            refined = decode_pass(w.visual, word.ids, visual_kv, mode="cloze", keep=word.last)
            if cross:
                found |= {"draft": answer.ids, "keep": answer.last[:, None], "refined": self._tokens(refined.ids)}
                refined = decode_pass(self._cross, answer.ids, *memory, mode="cloze", keep=answer.last)
            answer = refined
        found |= _spelled(answer)
        return torch.cat([found[name] for name in self.columns], dim=1, out=out), kv

    def reread(self, results: Tensor, kv: Tensor, rows: Tensor, out: Tensor | None = None) -> Tensor:
        """The refined captions of `rows` (R,) int64, and with them the cross-modal refinement anew.

        Returns (R, 2 T) int32: ids and the probabilities' bits.
        """
        place, chosen = self.columns, results.index_select(0, rows)
        cross = kv.unflatten(-1, (self.weights.decoders, -1))[:, :, 1].index_select(0, rows)  # [R, M, 2 d]
        draft, keep, caption = (chosen[:, place[name]].contiguous() for name in ("draft", "keep", "refined"))
        memory = key_value_view(cross, self._cross.heads), self._text(caption)
        answer = decode_pass(self._cross, draft, *memory, mode="cloze", keep=keep[:, 0])
        return torch.cat(list(_spelled(answer).values()), dim=1, out=out)

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


def _spelled(answer: Answer) -> dict[str, Tensor]:
    return {"ids": answer.ids, "probs": answer.probs.view(torch.int32)}
