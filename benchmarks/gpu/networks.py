"""The networks that the suite times, and the published way of decoding. Weights are random: no checkpoint needed."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clip4str.benchmarks.forcing import ForcedWords, Forcing
from clip4str.benchmarks.published import Published
from clip4str.model import Clip4Str, Config
from clip4str.model.sizes import SIZES
from clip4str.runtime.backends.fixed_passes import FIRST

WORD, VISUAL_PASSES, CROSS_PASSES = 6, FIRST.visual, FIRST.cross
FORCING = Forcing(WORD, VISUAL_PASSES, CROSS_PASSES, text_calls=1)
TINY = Config(
    image_size=(32, 64), patch_size=(16, 16), image_width=64, image_layers=1, text_width=64, text_layers=1,
    text_positions=16, vocabulary=2562, d=64, decoder_mlp=128,
)  # fmt: skip


def sizes(dry_run: bool) -> dict[str, Config]:
    """The networks to time, by name; in a dry run a tiny one under each name."""
    return {name: TINY if dry_run else SIZES[name] for name in ("base16", "small", "large")}


def random_pixels(config: Config, images: int, device: torch.device, seed: int = 0) -> Tensor:
    """(N, 3, H, W) float32 in -1..1: smooth shades and strokes, about as rough as a photographed word."""
    generator = torch.Generator(device).manual_seed(seed)
    height, width = config.image_size

    def noise(h: int, w: int) -> Tensor:
        field = torch.randn(images, 3, h, w, generator=generator, device=device)
        return F.interpolate(field, (height, width), mode="bilinear", align_corners=False)

    return (0.6 * noise(3, 5) + 0.8 * noise(9, 17).sign() + 0.1 * noise(height, width)).clamp(-1, 1)


class PublishedWay:
    """Step by step, eager, in the model's type: float32, or half for `model.half()`; or with autocast to half. Words of
    six characters are forced: everything is computed, then the ids are replaced, as in benchmarks/forcing.py."""

    def __init__(self, model: Clip4Str, device: torch.device, autocast: bool = False) -> None:
        self.model, self.device = model, device
        self._published, self._dtype = Published(model), model.clip_model.logit_scale.dtype
        self._autocasts = autocast

    def __call__(self, pixels: Tensor) -> list[str]:
        """Normalised pixels on the device, float32 -> words."""
        self._published.pick = self._forced(len(pixels))
        with self._autocast():
            return self._published.words(self._published(pixels.to(self._dtype)))

    def _autocast(self) -> Any:
        if not self._autocasts:
            return contextlib.nullcontext()
        dtype = torch.float16 if self.device.type == "cuda" else torch.bfloat16
        return torch.autocast(self.device.type, dtype)

    def _forced(self, images: int) -> Callable[[Tensor, int], Tensor]:
        forced = ForcedWords(self.model.charset, self.model.config.steps, WORD, images)
        words = torch.from_numpy(forced.ids()).to(self.device)

        def pick(logits: Tensor, first: int) -> Tensor:
            return words[:, first : first + logits.argmax(-1).shape[1]]

        return pick
