"""The published way of decoding, as the baseline to measure against: eager torch, one step at a time.

Zhao et al., "CLIP4STR", IEEE TIP 2024 (arXiv 2305.14014), the forward of its published code, over our
modules: decoder memory is projected at every step, text features are concatenated to the image's before that
projection, captions are tokenised on the host, and the early stop is shared by the batch. So its answers are
CLIP4STR's at batch 1 and may differ from them at larger batches, as they do in the published code.

Shapes: N images, M memory tokens, d features, T = 26 steps, L <= T steps run, C classes.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from clip4str.benchmarks.stopwatch import Stopwatch
from clip4str.core.text import END
from clip4str.model import Clip4Str
from clip4str.model.network import Decoder

Pick = Callable[[Tensor, int], Tensor]


def greedy(logits: Tensor, first: int) -> Tensor:
    """(N, S, C) logits of positions first..first + S - 1 -> their most likely ids, (N, S)."""
    return logits.argmax(-1)


class Published:
    """The published forward of a network. `pick` chooses ids from logits; the stopwatch times the four parts."""

    def __init__(self, model: Clip4Str, pick: Pick = greedy, stopwatch: Stopwatch | None = None) -> None:
        self.model, self.pick = model, pick
        self.stopwatch = stopwatch or Stopwatch()
        self._decoders: dict[str, Decoder] = {"visual": model.visual_decoder, "cross": model.cross_decoder}
        visible = torch.ones(model.config.steps, model.config.steps, dtype=torch.bool)
        visible = visible.to(model.clip_model.logit_scale.device)
        self._causal, self._cloze = visible.tril(), ~visible.tril(1).triu(1)

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (N, 3, H, W) -> logits of the cross-modal refinement, (N, T, C)."""
        model = self.model
        with self.stopwatch("image"):
            memory = model.clip_model.visual(pixels)
        visual = self._autoregress("visual", memory)
        both = self._with_text(visual, memory)
        cross = self._autoregress("cross", both, steps=visual.shape[1])
        visual = self._refine("visual", visual, memory)
        both = self._with_text(visual, memory)
        return self._refine("cross", cross, both)

    def _autoregress(self, branch: str, memory: Tensor, steps: int | None = None) -> Tensor:
        """Greedy logits (N, L, C): of exactly `steps` steps, or until every word of the batch has ended."""
        decoder, most = self._decoders[branch], steps or self.model.config.steps
        tokens = torch.full((len(memory), most), self.model.charset.pad, device=memory.device)
        tokens[:, 0] = self.model.charset.start
        logits = []
        for i in range(most):
            with self.stopwatch(branch):
                logits.append(self._step(decoder, tokens[:, : i + 1], memory))
            if i + 1 < most:
                tokens[:, i + 1] = self.pick(logits[-1], i)[:, 0]
                if steps is None and (tokens == END).any(dim=-1).all():
                    break
        return torch.cat(logits, dim=1)

    def _step(self, decoder: Decoder, tokens: Tensor, memory: Tensor) -> Tensor:
        """One query, the last position, over all content so far: (N, 1, C)."""
        i = tokens.shape[1] - 1
        embedded = decoder.text_embed(tokens)
        content = torch.cat((embedded[:, :1], decoder.pos_queries[:, :i] + embedded[:, 1:]), dim=1)
        query = decoder.pos_queries[:, i : i + 1].expand(len(tokens), -1, -1)
        attend = self._causal[i : i + 1, : i + 1]
        x = decoder.layers[0](query, content, decoder.project_memory(memory), attend)
        return decoder.head(decoder.norm(x))

    def _refine(self, branch: str, logits: Tensor, memory: Tensor) -> Tensor:
        """One cloze pass over the word so far, all positions at once: (N, T, C)."""
        start = torch.full((len(memory), 1), self.model.charset.start, device=memory.device)
        tokens = torch.cat((start, self.pick(logits[:, :-1], 0)), dim=1)
        past_end = (tokens == END).cumsum(-1) > 0
        attend = self._cloze[:, : tokens.shape[1]] & ~past_end[:, None, :]
        decoder = self._decoders[branch]
        with self.stopwatch(branch):
            return decoder(tokens, attend, decoder.project_memory(memory))

    def _with_text(self, logits: Tensor, memory: Tensor) -> Tensor:
        """Memory with the text features of the logits' words: (N, M + context, d)."""
        with self.stopwatch("text"):
            captions = [self.model.charset.caption(row) for row in self.pick(logits.softmax(-1), 0).tolist()]
            bpe = torch.from_numpy(self.model.tokenizer(captions)).to(memory.device)
            return torch.cat((memory, self.model.clip_model.encode_text(bpe)), dim=1)

    def words(self, logits: Tensor) -> list[str]:
        """The words that the deciding logits spell."""
        return [self.model.charset.decode(row) for row in self.pick(logits, 0).tolist()]
