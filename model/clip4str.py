"""The whole recogniser: the network's parts as the four stages that core/driver.py calls in order."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from clip4str.core.bpe import BytePairTokenizer
from clip4str.core.driver import PredictAndRefine
from clip4str.core.errors import ImageError
from clip4str.core.masks import Rule
from clip4str.core.reading import Decoding, Pass, Reading
from clip4str.core.text import END, chosen_charset

from .config import Config
from .network import Network


class Clip4Str(Network):
    """CLIP4STR, predicting and refining. Batches are no more than a convenience: every image gets the answer the
    published code gives it alone.

    decoding: Decoding("ar" | "nar", refine=0.., branch="cross" | "visual"); replaceable at any time.
    charset_test: what captions are reduced to, see core.text.Charset. Raises CharsetError if it cannot be.
    """

    flexible_steps = True

    def __init__(
        self,
        config: Config,
        decoding: Decoding | None = None,
        charset_test: str | None = None,
        dropout: float = 0.0,
    ) -> None:
        super().__init__(config, dropout)
        self.charset = chosen_charset(config.charset, config.charset_test, charset_test)
        self.tokenizer = BytePairTokenizer(config.vocabulary, config.context)
        self.decoding = decoding or Decoding()

    def forward(self, pixels: Tensor) -> Tensor:
        """Normalised pixels (N, 3, H, W) -> logits (N, T, C) of the deciding pass: the cross-modal refinement.

        With refine=0 there is no such pass over all positions; past a word's end the end token is then certain.
        Raises ImageError if the pixels are not of the network's size.
        """
        reading = self.read(pixels, full_logits=True)
        logits = reading.logits
        if self.decoding.refine == 0:
            ended = torch.full((*reading.ids.shape, logits.shape[-1]), -torch.inf, device=logits.device)
            ended[..., END] = 0
            word = torch.from_numpy(np.cumsum(reading.ids == END, axis=1) <= 1).to(logits.device)
            word &= torch.from_numpy(reading.steps_run[:, None] > np.arange(self.config.steps)).to(logits.device)
            width = logits.shape[1]
            ended[:, :width][word[:, :width]] = logits[word[:, :width]]
            logits = ended
        return logits

    @torch.inference_mode()
    def read(self, pixels: Tensor, full_logits: bool = False) -> Reading:
        """Normalised pixels (N, 3, H, W) -> Reading, see core.driver."""
        expected = (3, *self.config.image_size)
        dtype = self.clip_model.visual.conv1.weight.dtype
        if pixels.dim() != 4 or not len(pixels) or tuple(pixels.shape[1:]) != expected or pixels.dtype != dtype:
            raise ImageError(
                f"pixels are {pixels.dtype} {tuple(pixels.shape)}, the network takes {dtype} "
                f"(N, {expected[0]}, {expected[1]}, {expected[2]}), N at least 1"
            )
        driver = PredictAndRefine(self.charset, self.tokenizer, self.config.steps, self.decoding)
        return driver(self, pixels, full_logits)

    def image(self, pixels: Tensor) -> tuple[Any, ...]:
        memory = self.clip_model.visual(pixels)
        keys_values = self.visual_decoder.project_memory(memory), self.cross_decoder.project_memory(memory)
        if self.draft_head is None:
            return keys_values
        return *keys_values, self.draft_head(memory).argmax(dim=-1).cpu().numpy()

    def visual(self, tokens: np.ndarray, rule: Rule, visual_kv: Tensor) -> Pass:
        return _answer(self.visual_decoder(self._tensor(tokens), self._tensor(rule.mask(tokens.shape[1])), visual_kv))

    def text(self, bpe: np.ndarray) -> Tensor:
        return self.cross_decoder.project_memory(self.clip_model.encode_text(self._tensor(bpe)))

    def cross(self, tokens: np.ndarray, rule: Rule, cross_kv: Tensor, text_kv: Tensor) -> Pass:
        memory_kv = torch.cat((cross_kv, text_kv), dim=3)
        return _answer(self.cross_decoder(self._tensor(tokens), self._tensor(rule.mask(tokens.shape[1])), memory_kv))

    def stack(self, rows: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(rows))

    def _tensor(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.clip_model.logit_scale.device)


def _answer(logits: Tensor) -> Pass:
    probs, ids = F.softmax(logits.float(), dim=-1).max(dim=-1)
    return Pass(ids.cpu().numpy(), probs.cpu().numpy(), logits)
