"""Tensors of the sizes that the library is tested at, and what it calls them."""

from __future__ import annotations

import ctypes
from typing import Any

import torch
from compiled_kernels import NETWORK
from torch import Tensor

from clip4str.kernels.decode_pass import DecoderWeights
from clip4str.kernels.loader import Decoder, Memory
from clip4str.kernels.shared.variants import NETWORKS, Network

NET = NETWORKS[NETWORK]


def pointer(tensor: Tensor | None) -> int:
    return 0 if tensor is None else tensor.data_ptr()


def half(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.float16)


def numbers(*shape: int) -> Tensor:
    return torch.zeros(shape, dtype=torch.int32)


def keys_values(n: int, length: int, strided: bool = False) -> Tensor:
    """(n, 2, h, length, e); strided: as a projection's output lies, (n, length, 2, h, e)"""
    h, e = NET.heads, NET.head_dim
    return half(n, length, 2, h, e).permute(0, 2, 3, 1, 4) if strided else half(n, 2, h, length, e)


def memory_of(tensor: Tensor | None) -> Memory:
    return Memory() if tensor is None else Memory(tensor.data_ptr(), tensor.shape[3], *tensor.stride()[:4])


def decoder_weights() -> DecoderWeights:
    t, k, c, h, d, f = NET.steps, NET.tokens, NET.classes, NET.heads, NET.d, NET.mlp
    tables = {"scores": torch.zeros(t, k, h, 32), "values": half(t, k, h, d), "base": torch.zeros(t, d)}
    attention = {"query_weight": half(d, d), "query_bias": half(d), "out_weight": half(d, d), "out_bias": half(d)}
    mlp = {"up_weight": half(f, d), "up_bias": half(f), "down_weight": half(d, f), "down_bias": half(d)}
    return DecoderWeights(**tables, **attention, **mlp, head_weight=half(c, d), head_bias=torch.zeros(c))


def decoder_of(weights: Any, net: Network = NET) -> Decoder:
    sizes = {"T": net.steps, "K": net.tokens, "C": net.classes, "d": net.d, "heads": net.heads, "F": net.mlp}
    pointers = [name for name, kind in Decoder._fields_ if kind is ctypes.c_uint64]
    return Decoder(**sizes, **{name: getattr(weights, name).data_ptr() for name in pointers})
