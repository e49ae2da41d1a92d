"""Weights of the golden networks, made by the recipe of tests/golden/README.md: numpy alone, nothing of ours."""

from __future__ import annotations

import json
import math
import zlib
from pathlib import Path

import numpy as np

GOLDEN = Path(__file__).parent / "golden"


def golden_array(name: str, shape: tuple[int, ...], seed: int, eos_bias: float) -> np.ndarray:
    x = np.random.RandomState((zlib.crc32(name.encode()) + seed) % 2**32).standard_normal(shape)
    x = np.asarray(x, np.float32)
    parts, last = name.split("."), name.rpartition(".")[2]
    if last == "logit_scale":
        value = np.float32(math.log(1 / 0.07)) + 0 * x
    elif any(p.startswith(("ln_", "norm")) for p in parts):
        value = 1 + 0.1 * x if last == "weight" else 0.05 * x
    elif last.endswith("bias") or "token_embedding" in name:
        value = 0.05 * x
    elif "text_embed" in name:
        value = x / math.sqrt(shape[-1])
    elif last in ("positional_embedding", "class_embedding"):
        value = 0.05 * x
    elif last == "pos_queries":
        value = x
    elif name.endswith("head.weight"):
        value = 3 * x / math.sqrt(shape[-1])
    elif last in ("proj", "text_projection"):
        value = x / math.sqrt(shape[0])
    elif "decoder" in name:
        value = 1.5 * x / math.sqrt(math.prod(shape[1:]))
    else:
        value = x / math.sqrt(math.prod(shape[1:]))
    value = np.asarray(value, np.float32)
    if name.endswith("head.bias"):
        value[0] += np.float32(eos_bias)
    return value


def golden_state(size: str, seed: int, eos_bias: float) -> dict[str, np.ndarray]:
    """The state_dict of the network called `size` ("tiny", "base16", ...) as arrays."""
    keys = json.loads((GOLDEN / f"keys-{size}.json").read_text())
    return {name: golden_array(name, tuple(shape), seed, eos_bias) for name, shape in keys.items()}
