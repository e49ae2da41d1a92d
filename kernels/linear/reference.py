"""Plain torch: what the kernels of this folder compute. float32 arithmetic, rounded where the kernels round.

Under `normalize` rows are rounded to the dtype, though the formula does not: they are an operand of the matrix product,
and tensor cores take operands in the dtype.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

EPS = 1e-5


def normalize_rows(x: Tensor, shift: Tensor | None = None) -> Tensor:
    """(x - mean) / sqrt(var + 1e-5) over the last dimension, var the biased variance; of x + shift [K] if given."""
    shifted = x.float() if shift is None else x.float() + shift
    return F.layer_norm(shifted, x.shape[-1:], eps=EPS).to(x.dtype)


def activate(x: Tensor, activation: str) -> Tensor:
    """x in float32 -> float32"""
    if activation == "gelu":
        return F.gelu(x)
    if activation == "quick_gelu":
        return x * torch.sigmoid(1.702 * x)
    return x


def activate_(x: Tensor, activation: str, *, bias: Tensor | None = None, residual: Tensor | None = None) -> Tensor:
    y = x.float() if bias is None else x.float() + bias.float()
    y = activate(y, activation)
    return x.copy_(y if residual is None else y + residual.float())


def linear(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    *,
    normalize: bool = False,
    activation: str = "none",
    residual: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    if normalize:
        x = normalize_rows(x)
    y = F.linear(x.float(), weight.float(), None if bias is None else bias.float())
    y = activate(y, activation)
    y = (y if residual is None else y + residual.float()).to(x.dtype)
    return y if out is None else out.copy_(y)
