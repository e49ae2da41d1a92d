"""Ours: the torch backend's one-shot program at a fixed batch and with fixed passes."""

from __future__ import annotations

import torch
from torch import Tensor

from clip4str.core.reading import Decoding
from clip4str.core.text import Charset
from clip4str.kernels.tokenize import TokenizerTables
from clip4str.model import Clip4Str
from clip4str.runtime.backends.pytorch.program import Program
from clip4str.runtime.backends.pytorch.towers import image_tower, patch_shape, patch_view
from clip4str.runtime.backends.pytorch.weights import Weights, pack, source_of_model


class FusedProgram:
    """Its buffers are static, so that a CUDA graph can hold it."""

    def __init__(self, weights: Weights, tables: TokenizerTables, batch: int, charset: Charset) -> None:
        self.config, self.charset = weights.config, charset
        self.program = Program(weights, tables, Decoding())
        device, c = weights.device, weights.config
        self.patches = torch.zeros(batch, *patch_shape(c), dtype=weights.dtype, device=device)
        self.kv = torch.empty(batch, c.memory_tokens, 4 * c.d, dtype=weights.dtype, device=device)
        self.results = torch.empty(batch, self.program.width, dtype=torch.int32, device=device)

    def load(self, pixels: Tensor) -> None:
        self.patches.copy_(patch_view(pixels, self.config))

    @torch.inference_mode()
    def tower(self) -> Tensor:
        return image_tower(self.program.weights.image, self.patches, out=self.kv)[0]

    @torch.inference_mode()
    def run(self) -> Tensor:
        self.program.run(self.patches, self.kv, self.results)
        return self.results

    def words(self) -> list[str]:
        """The words in the results; waits for them."""
        ids = self.results[:, self.program.columns["ids"]].cpu().numpy()
        return [self.charset.decode(row) for row in ids]


def fused(model: Clip4Str, dtype: torch.dtype, device: torch.device) -> tuple[Weights, TokenizerTables]:
    """A network packed for ours."""
    weights = pack(source_of_model(model, "random weights"), dtype, device)
    return weights, TokenizerTables.build(model.tokenizer, model.charset, device)
