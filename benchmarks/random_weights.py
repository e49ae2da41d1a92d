"""Networks of the usual sizes with random weights: they read no words, but show how fast a size is."""

from __future__ import annotations

import math
from pathlib import Path

import torch

from clip4str.core.errors import UsageError
from clip4str.model import Clip4Str, Config, save_checkpoint
from clip4str.model.sizes import SIZES, size_name


def random_network(config: Config, device: torch.device | str = "cpu", seed: int = 0) -> Clip4Str:
    """Float32, made on the device. Its parameters require gradients, as a loaded checkpoint's do: autocast caches
    half-precision copies of no others."""
    with torch.device("meta"):
        model = Clip4Str(config)
    generator = torch.Generator(device).manual_seed(seed)
    state = {
        name: scaled(name, torch.randn(tensor.shape, generator=generator, device=device))
        for name, tensor in model.state_dict().items()
    }
    model.load_state_dict(state, assign=True)
    return model.eval()


def random_checkpoint(size: str, folder: Path, seed: int = 0) -> Path:
    """Write folder/clip4str-SIZE-random.safetensors; returns its path. Raises UsageError for an unknown size."""
    if (size := size_name(size)) not in SIZES:
        raise UsageError(f"--random-weights is one of {', '.join(SIZES)}, not {size!r}")
    path = folder / f"clip4str-{size}-random.safetensors"
    save_checkpoint(random_network(SIZES[size], seed=seed), path)
    return path


def random_bundle(checkpoint: Path, folder: Path, precision: str, max_batch: int) -> Path:
    """The checkpoint as a bundle in `folder`; returns its path. Its words mean nothing, so none need to agree."""
    from clip4str.export.bundles import build_bundle

    target = folder / f"{checkpoint.stem}-{precision}"
    return build_bundle(checkpoint, target, precision=precision, max_batch=max_batch, min_agreement=0, force=True)


def scaled(name: str, x: torch.Tensor) -> torch.Tensor:
    """Standard normal values, scaled so that activations neither vanish nor blow up."""
    parts = name.split(".")
    if name.endswith("logit_scale"):
        return torch.full_like(x, math.log(1 / 0.07))
    if any(part.startswith(("ln_", "norm")) for part in parts):
        return 1 + 0.1 * x if parts[-1] == "weight" else 0.05 * x
    if parts[-1].endswith(("bias", "positional_embedding", "class_embedding")) or "token_embedding" in name:
        return 0.05 * x
    if parts[-1] == "pos_queries":
        return x
    if parts[-1] in ("proj", "text_projection"):
        return x / math.sqrt(x.shape[0])
    return x / math.sqrt(math.prod(x.shape[1:]))
