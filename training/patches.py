"""Weights of an image tower under patches of another shape."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from clip4str.model import Config


@torch.no_grad()
def resample_patches(state: dict[str, Tensor], old: Config, new: Config) -> None:
    """Other patches on the same weights: kernel and positions resampled (Beyer et al., "FlexiViT", CVPR 2023)."""
    kernel, positions = (f"clip_model.visual.{name}" for name in ("conv1.weight", "positional_embedding"))
    shrunk = math.prod(old.patch_size) / math.prod(new.patch_size)
    state[kernel] = shrunk * F.interpolate(state[kernel].float(), new.patch_size, mode="bilinear")
    first, rest = state[positions].float().split((1, math.prod(old.grid)))
    rest = rest.mT.unflatten(1, old.grid)[None]
    rest = F.interpolate(rest, new.grid, mode="bilinear")[0].flatten(1).mT
    state[positions] = torch.cat((first, rest))
