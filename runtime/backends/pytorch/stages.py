"""The four stage functions of core/driver.py on packed weights.

The driver runs over them wherever one program of fixed length cannot: several rounds of refinement, captions that the
device cannot tokenize, and the parity check of a build.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clip4str.core.errors import UsageError
from clip4str.core.masks import Rule
from clip4str.core.reading import Pass, Stages
from clip4str.kernels.decode_pass import DecoderWeights, decode_pass

from .inputs import from_numpy, to_device
from .towers import image_tower, key_value_view, memory_views, patch_shape, patch_view, text_tower
from .weights import Weights


class TorchStages(Stages):
    """The network in four functions: small numpy arrays in and out, keys and values stay on the device.

    Keys and values (N, 2, h, M, e) are views of one matrix product's output. Passes always compute all T positions;
    what the driver asks for is cut out of them. logits are tensors on the device.
    """

    flexible_steps = True

    def __init__(self, weights: Weights) -> None:
        self.weights = weights

    @torch.inference_mode()
    def image(self, pixels: np.ndarray | Tensor) -> tuple[Any, ...]:
        kv, draft = image_tower(self.weights.image, patches_of(pixels, self.weights))
        keys_values = memory_views(kv, self.weights)
        return keys_values if draft is None else (*keys_values, draft.argmax(dim=-1).cpu().numpy())

    @torch.inference_mode()
    def visual(self, tokens: np.ndarray, rule: Rule, visual_kv: np.ndarray | Tensor) -> Pass:
        return _decode(self.weights.visual, tokens, rule, self._memory(visual_kv))

    @torch.inference_mode()
    def text(self, bpe: np.ndarray) -> Tensor:
        if self.weights.text is None or self.weights.cross is None:
            raise UsageError("loaded for the visual branch alone: there is no text tower")
        tokens = torch.from_numpy(bpe).to(self.weights.device)
        return key_value_view(text_tower(self.weights.text, tokens), self.weights.cross.heads)

    @torch.inference_mode()
    def cross(self, tokens: np.ndarray, rule: Rule, cross_kv: Any, text_kv: Any) -> Pass:
        if self.weights.cross is None:
            raise UsageError("loaded for the visual branch alone: there is no cross-modal decoder")
        return _decode(self.weights.cross, tokens, rule, self._memory(cross_kv), self._memory(text_kv))

    @torch.inference_mode()
    def stack(self, rows: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(rows))

    def _memory(self, kv: np.ndarray | Tensor) -> Tensor:
        """Keys and values; arrays are another backend's, in float32."""
        return from_numpy(kv).to(self.weights.device, self.weights.dtype) if isinstance(kv, np.ndarray) else kv


def patches_of(pixels: np.ndarray | Tensor, weights: Weights) -> Tensor:
    """Pixels (N, 3, H, W) -> patches (N, *patch_shape) in the weights' dtype on their device."""
    view = patch_view(to_device(pixels, weights.device), weights.config)
    patches = torch.empty(len(view), *patch_shape(weights.config), dtype=weights.dtype, device=weights.device)
    return patches.copy_(view)


def _decode(
    weights: DecoderWeights, tokens: np.ndarray, rule: Rule, memory: Tensor, text: Tensor | None = None
) -> Pass:
    padded, width = np.zeros((len(tokens), weights.steps), np.int32), rule.queries
    padded[:, : tokens.shape[1] - 1] = tokens[:, 1:]
    ids = None if rule.mode == "start" else torch.from_numpy(padded).to(weights.device)
    kept = torch.from_numpy(rule.keep.astype(np.int32)).to(weights.device) if rule.mode == "cloze" else None
    out = decode_pass(weights, ids, memory, text, mode=rule.mode, keep=kept, logits=True)
    assert out.logits is not None
    return Pass(out.ids[:, :width].cpu().numpy(), out.probs[:, :width].cpu().numpy(), out.logits[:, :width])
