"""Besides the published way, ours is compared with the same few passes in plain torch, captured or compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clip4str.benchmarks.forcing import ForcedStages, ForcedWords
from clip4str.benchmarks.gpu.networks import CROSS_PASSES, FORCING, VISUAL_PASSES, WORD
from clip4str.core.driver import PredictAndRefine
from clip4str.core.masks import Rule
from clip4str.core.reading import Pass, Stages
from clip4str.core.text import END
from clip4str.model import Clip4Str


class PlainProgram:
    """The same passes in plain half-precision torch, without our kernels; can be captured in a CUDA graph. The
    captions' tokens are given, since without a kernel they would come from the host."""

    def __init__(self, model: Clip4Str, batch: int) -> None:
        """model: in half precision."""
        self.model, device, steps = model, model.clip_model.logit_scale.device, model.config.steps
        words = ForcedWords(model.charset, steps, WORD, batch).ids()
        self.bpe = torch.from_numpy(model.tokenizer([model.charset.caption(row) for row in words])).to(device)
        self.start = torch.full((batch, 1), model.charset.start, device=device)
        every = torch.ones(steps, steps, dtype=torch.bool, device=device)
        self.first = torch.zeros_like(every).index_fill_(1, torch.tensor([0], device=device), True)
        self.causal, self.cloze, self.position = (
            every.tril(),
            ~every.tril(1).triu(1),
            torch.arange(steps, device=device),
        )

    @torch.inference_mode()
    def __call__(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """pixels (N, 3, H, W) in half precision -> ids and probabilities, (N, T)."""
        model = self.model
        memory = model.clip_model.visual(pixels)
        visual_kv, cross_kv = (d.project_memory(memory) for d in (model.visual_decoder, model.cross_decoder))
        word, _ = self._pass(model.visual_decoder, self.start.expand(-1, len(self.first)), self.first, visual_kv)
        for _ in range(VISUAL_PASSES - 1):
            word, _ = self._pass(model.visual_decoder, word, self.causal, visual_kv)
        text = model.cross_decoder.project_memory(model.clip_model.encode_text(self.bpe))
        both, answer = torch.cat((cross_kv, text), dim=3), word
        for _ in range(CROSS_PASSES):
            answer, _ = self._pass(model.cross_decoder, answer, self.causal, both)
        self._pass(model.visual_decoder, word, self._before_end(word), visual_kv)
        return self._pass(model.cross_decoder, answer, self._before_end(answer), both)

    def _pass(self, decoder: Any, ids: Tensor, attend: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        logits = decoder(torch.cat((self.start, ids[:, :-1]), dim=1), attend, memory)
        probs, ids = F.softmax(logits.float(), dim=-1).max(dim=-1)
        return ids, probs

    def _before_end(self, ids: Tensor) -> Tensor:
        """The cloze mask, content behind the end token hidden: (N, T, T)."""
        keep = torch.where(ids == END, self.position, len(self.position)).amin(dim=1)
        return self.cloze & (self.position <= keep[:, None])[:, None, :]


class CompiledReference(Stages):
    """torch.compile of the reference network's four stages in half precision, under the ordinary driver: the same few
    parallel passes as ours, at fixed shapes, CUDA graphs included."""

    flexible_steps = False

    def __init__(self, model: Clip4Str, half: torch.dtype, mode: str | None) -> None:
        self.model, self.half, self.device = model, half, model.clip_model.logit_scale.device
        options: dict[str, Any] = {"dynamic": False, **({"mode": mode} if mode else {"backend": "eager"})}
        self._image = torch.compile(model.image, **options)
        self._text = torch.compile(self._text_kv, **options)
        self._decode = {
            name: torch.compile(self._decoder(name), **options) for name in ("visual_decoder", "cross_decoder")
        }
        self._driver = PredictAndRefine(model.charset, model.tokenizer, model.config.steps)
        self._forced = ForcedStages(self, FORCING, model.charset, model.config.steps)

    def __call__(self, pixels: Tensor) -> list[str]:
        with torch.inference_mode():
            reading = self._driver(self._forced, pixels)
        return [self.model.charset.decode(row) for row in reading.ids]

    def image(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        torch.compiler.cudagraph_mark_step_begin()  # whatever an earlier batch returned may now be overwritten
        return self._image(pixels.to(self.half))

    def visual(self, tokens: np.ndarray, rule: Rule, visual_kv: Tensor) -> Pass:
        return self._pass("visual_decoder", tokens, rule, visual_kv)

    def text(self, bpe: np.ndarray) -> Tensor:
        return self._text(torch.from_numpy(bpe).to(self.device))

    def cross(self, tokens: np.ndarray, rule: Rule, cross_kv: Tensor, text_kv: Tensor) -> Pass:
        return self._pass("cross_decoder", tokens, rule, cross_kv, text_kv)

    def stack(self, rows: Any) -> Tensor:
        return torch.stack(list(rows))

    def _text_kv(self, bpe: Tensor) -> Tensor:
        return self.model.cross_decoder.project_memory(self.model.clip_model.encode_text(bpe))

    def _pass(self, name: str, tokens: np.ndarray, rule: Rule, *memory: Tensor) -> Pass:
        given = (torch.from_numpy(array).to(self.device) for array in (tokens, rule.mask(tokens.shape[1])))
        ids, probs = self._decode[name](*given, *memory)
        return Pass(ids.cpu().numpy(), probs.cpu().numpy())

    def _decoder(self, name: str) -> Callable[..., tuple[Tensor, Tensor]]:
        decoder = getattr(self.model, name)

        def decode(tokens: Tensor, attend: Tensor, *memory: Tensor) -> tuple[Tensor, Tensor]:
            logits = decoder(tokens, attend, torch.cat(memory, dim=3) if len(memory) > 1 else memory[0])
            probs, ids = F.softmax(logits.float(), dim=-1).max(dim=-1)
            return ids, probs

        return decode
