"""What training starts from: network sizes, random weights that learn quickly, CLIP's weights, or a checkpoint's."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from clip4str.core.errors import CheckpointError
from clip4str.model import load_checkpoint
from clip4str.model.clip4str import Clip4Str
from clip4str.model.network import Attention

from .characters import carry_characters
from .clip_weights import clip_state, fill_towers
from .patches import resample_patches


@torch.no_grad()
def initialize(model: Clip4Str) -> None:
    """Random weights with the structure that trained image towers end up with, so that they need not find it first.

    Positions are two-dimensional sinusoids, and attention starts by looking at similar positions:
    W_q W_k^T near the identity, W_v W_o near minus the identity (Trockman and Kolter, "Mimetic Initialization of
    Self-Attention Layers", ICML 2023).
    """
    tower = model.clip_model.visual
    tower.positional_embedding[1:] = 0.5 * sinusoids(model.config.grid, model.config.image_width)
    heads, width = model.config.image_heads, model.config.image_width
    for attention in (m for m in tower.modules() if isinstance(m, Attention)):
        q, k = (torch.cat(parts) for parts in zip(*(_factors(width, width // heads, 0.7, 0.7) for _ in range(heads))))
        out, v = _factors(width, width, 0.4, -0.4)
        attention.in_proj_weight.copy_(torch.cat((q, k, v)))
        attention.out_proj.weight.copy_(out.mT)
    for module in model.modules():
        if isinstance(module, nn.Linear) and module.bias is not None:
            nn.init.zeros_(module.bias)


def sinusoids(grid: tuple[int, int], width: int) -> Tensor:
    """Two-dimensional sine and cosine positions, (rows * columns, width)."""
    rate = torch.exp(torch.arange(width // 4) * (-math.log(100.0) / (width // 4)))
    rows, columns = torch.meshgrid(*(torch.arange(n, dtype=torch.float32) for n in grid), indexing="ij")
    angles = [axis.reshape(-1, 1) * rate for axis in (rows, columns)]
    return torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], dim=1)


def _factors(width: int, rank: int, noise: float, identity: float) -> tuple[Tensor, Tensor]:
    """A^T B close to noise * Z + identity * I, each (rank, width)."""
    target = noise * torch.randn(width, width) / math.sqrt(width) + identity * torch.eye(width)
    u, s, vh = torch.linalg.svd(target)
    root = s[:rank].sqrt()
    return (u[:, :rank] * root).mT.contiguous(), root[:, None] * vh[:rank]


def start_from(model: Clip4Str, source: str, size: str, checkpoint: Clip4Str | None = None) -> list[str]:
    """Fill the model: "random", "clip..." (towers of a CLIP, see clip_weights.clip_state), or a checkpoint's path.
    Returns lines on what of a checkpoint begins anew.

    A CLIP or checkpoint may have patches of another shape, and a checkpoint fewer image layers, another charset and
    other lengths of words; it is that of the path where it has been loaded. Raises CheckpointError, UsageError if it is
    otherwise of another size, UsageError if open_clip is missing or lacks it.
    """
    said: list[str] = []
    if source == "random":
        initialize(model)
    elif source.partition(":")[0] == "clip":
        fill_towers(model, *clip_state(source, size))
    else:
        other = load_checkpoint(source) if checkpoint is None else checkpoint
        state = dict(other.state_dict())
        said = carry_characters(state, other, model)
        if other.config.grid != model.config.grid or other.config.patch_size != model.config.patch_size:
            resample_patches(state, other.config, model.config)
        if other.config.image_layers < model.config.image_layers:
            state = _insert_layers(state, other.config.image_layers, model.config.image_layers)
        own = model.state_dict()
        if model.draft_head is not None and other.draft_head is None:
            # It begins at zero: a random one's first gradients would shake a tower that reads already.
            state |= {k: torch.zeros_like(v) for k, v in own.items() if k.startswith("draft_head.")}
        wrong = [k for k, v in own.items() if k not in state or state[k].shape != v.shape]
        if wrong:
            raise CheckpointError(
                f"{source}: another size than the network to train, first in {wrong[0]}; choose --size to match"
            )
        model.load_state_dict(state, strict=False)
    return said


def _insert_layers(state: dict[str, Tensor], old: int, new: int) -> dict[str, Tensor]:
    """A deeper image tower that computes the same: evenly among the blocks stand copies of the ones before them which
    add nothing, their last matrices being zero (Wu et al., "LLaMA Pro: Progressive LLaMA with Block Expansion", ACL
    2024)."""
    prefix, extra = "clip_model.visual.transformer.resblocks.", new - old
    sources = [block for block in range(old) for _ in range(1 + (block + 1) * extra // old - block * extra // old)]
    deeper = {key: value for key, value in state.items() if not key.startswith(prefix)}
    for block, source in enumerate(sources):
        start = f"{prefix}{source}."
        inserted = block > 0 and sources[block - 1] == source
        for key in (key for key in state if key.startswith(start)):
            name = key.removeprefix(start)
            silent = inserted and name.startswith(("attn.out_proj.", "mlp.c_proj."))
            deeper[f"{prefix}{block}.{name}"] = torch.zeros_like(state[key]) if silent else state[key].clone()
    return deeper
