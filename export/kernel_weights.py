"""The decoders packed for the compiled kernels (kernels/library), which the TensorRT backend runs where they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import torch

from clip4str.core.errors import CharsetError
from clip4str.kernels.decode_pass import DecoderWeights
from clip4str.kernels.decode_pass.weights import pack_decoder
from clip4str.kernels.shared.variants import network_of
from clip4str.kernels.tokenize import TokenizerTables
from clip4str.model.clip4str import Clip4Str

DECODERS_FILE = "decoders.npz"


def write_decoders(model: Clip4Str, path: Path, say: Callable[[str], object]) -> Path | None:
    """An uncompressed .npz of arrays only, half precision; None if no kernels are compiled for this network.

    "visual.NAME" and "cross.NAME" for every NAME of DecoderWeights, "network" (whose kernels), and where captions can
    be tokenised on the device "tokenizer.characters" and "tokenizer.pairs".
    """
    network = network_name(model)
    if network is None:
        say("kernels: none are compiled for a network of this size; the engines' own decoders will run")
        return None
    arrays = {"network": np.array(network)}
    for branch in ("visual", "cross"):
        packed = pack_decoder(getattr(model, f"{branch}_decoder"), torch.float16, "cpu")
        arrays |= {f"{branch}.{f.name}": getattr(packed, f.name).numpy() for f in fields(DecoderWeights)}
    try:
        tables = TokenizerTables.build(model.tokenizer, model.charset)
        arrays |= {"tokenizer.characters": tables.characters.numpy(), "tokenizer.pairs": tables.pairs.numpy()}
    except CharsetError:
        pass  # captions of other characters are the host's to tokenise
    with path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
    say(f"kernels {path.stat().st_size / 1e6:8.1f} MB  decoders for the compiled kernels ({network})")
    return path


def network_name(model: Clip4Str) -> str | None:
    """Which of kernels.shared.variants.NETWORKS this is, as far as decoders can tell."""
    c = model.config
    sizes = {"heads": c.decoder_heads, "text": c.context, "classes": len(c.charset) + 1, "mlp": c.decoder_mlp}
    found = network_of(d=c.d, memory=c.memory_tokens, steps=c.steps, **sizes)
    return None if found is None else found.name
