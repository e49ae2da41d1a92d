"""The network as model/ has it, in place of the fused path: for networks larger than the kernels take.

Words of more than 31 characters, charsets of thousands, the whole of CLIP's text context: slower, and all of it right.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from clip4str.core.driver import PredictAndRefine
from clip4str.core.errors import BackendError
from clip4str.core.masks import Rule
from clip4str.core.reading import Pass, Reading, Stages
from clip4str.model.clip4str import Clip4Str

from ..contract import Backend
from .graphs import BUCKETS, read_driven
from .inputs import accept_pixels, from_numpy, to_device
from .weights import Source


class PlainBackend(Backend):
    """The four stages are the network's own, called by the driver. No CUDA graphs, no cutting out on the device."""

    name = "torch"

    def __init__(self, network: Clip4Str, batch_size: int) -> None:
        super().__init__(network.config.image_size, min(batch_size, BUCKETS[-1]))
        tensor = network.clip_model.visual.conv1.weight
        self.network, self.device, self.dtype = network, tensor.device, tensor.dtype
        self.on_gpu, self.threads = self.device.type == "cuda", torch.get_num_threads()

    def accept(self, pixels: Any) -> Tensor:
        return accept_pixels(pixels, self.image_size, self.device)

    def read(self, driver: PredictAndRefine, pixels: Any, stages: Stages | None = None) -> Reading:
        """Raises BackendError if memory does not suffice, or if torch fails."""
        return read_driven(driver, pixels, stages or self, self.device)

    @torch.inference_mode()
    def image(self, pixels: np.ndarray | Tensor) -> tuple[Any, ...]:
        return self.network.image(to_device(pixels, self.device).to(self.dtype))

    @torch.inference_mode()
    def visual(self, tokens: np.ndarray, rule: Rule, visual_kv: np.ndarray | Tensor) -> Pass:
        return self.network.visual(tokens, rule, self._memory(visual_kv))

    @torch.inference_mode()
    def text(self, bpe: np.ndarray) -> Tensor:
        return self.network.text(bpe)

    @torch.inference_mode()
    def cross(self, tokens: np.ndarray, rule: Rule, cross_kv: Any, text_kv: Any) -> Pass:
        return self.network.cross(tokens, rule, self._memory(cross_kv), self._memory(text_kv))

    @torch.inference_mode()
    def stack(self, rows: Sequence[Tensor]) -> Tensor:
        return torch.stack(list(rows))

    def _memory(self, kv: np.ndarray | Tensor) -> Tensor:
        """Keys and values; arrays are another backend's, in float32."""
        return from_numpy(kv).to(self.device, self.dtype) if isinstance(kv, np.ndarray) else kv


def load_network(source: Source, dtype: torch.dtype, device: torch.device) -> Clip4Str:
    """The network of a source's weights. Raises BackendError if a weight does not fit the dtype."""
    with torch.device("meta"):
        network = Clip4Str(source.config)
    state = {}
    for name in network.state_dict():
        state[name] = source.take(name).detach().to(device, dtype)
        if not torch.isfinite(state[name]).all():
            kind = str(dtype).removeprefix("torch.")
            raise BackendError(f"{source.name}: weights overflow {kind}; load with dtype='bfloat16' or 'float32'")
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)
