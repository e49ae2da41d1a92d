"""The network's tensors in a bundle, for the torch backend: it packs them itself for the device it finds."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch

from clip4str.core.errors import UsageError
from clip4str.core.progress import Progress
from clip4str.export.parity import Parity, measure
from clip4str.kernels.limits import beyond_kernels
from clip4str.model.checkpoint import save_checkpoint
from clip4str.model.clip4str import Clip4Str
from clip4str.model.config import Config
from clip4str.runtime.bundle import WEIGHTS, Bundle

WEIGHTS_FILE = "weights.safetensors"


def say_if_slow(config: Config, say: Callable[[str], object]) -> None:
    """That the torch backend reads a network without its fused kernels, before anything is built."""
    if why := beyond_kernels(config):
        say(f"torch backend: {why}, so it will read with plain operators, and slower")


def write_weights(model: Clip4Str, path: Path, precision: str, say: Callable[[str], object]) -> Path:
    """Safetensors of the published names, in half precision for fp16. Raises UsageError if a weight overflows it."""
    dtype = torch.float16 if precision == "fp16" else torch.float32
    for name, tensor in model.state_dict().items():
        if not torch.isfinite(tensor.to(dtype)).all():
            raise UsageError(f"{name} does not fit half precision; build for torch without --fp16")
    save_checkpoint(model, path, dtype)
    say(f"{WEIGHTS:7} {path.stat().st_size / 1e6:8.1f} MB")
    return path


def check_weights(model: Clip4Str, bundle: Bundle, pixels: np.ndarray, say: Callable[[str], object]) -> Parity:
    """The torch backend's stages over the weights written, against the network: on the CPU, in float32 arithmetic."""
    from clip4str.runtime.backends.pytorch import cpu_stages

    with Progress(len(pixels), "comparing words", "images") as bar:
        parity = measure(model, cpu_stages(bundle), pixels, bar.update)
    say(f"torch backend: {parity.agreeing} of {parity.images} words agree ({100 * parity.agreement:.1f}%)")
    return parity
