"""The specification of the short attention in plain torch: float32, rounded where the kernel rounds."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def short_attention(
    qkv: Tensor, weight: Tensor, bias: Tensor | None, residual: Tensor, heads: int, causal: bool
) -> Tensor:
    """As api.short_attention."""
    n, length, width = residual.shape
    q, k, v = qkv.float().view(n, length, 3, heads, width // heads).permute(2, 0, 3, 1, 4)  # [N, heads, S, e] each
    scores = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
    if causal:
        later = torch.ones(length, length, dtype=torch.bool, device=qkv.device).triu(1)
        scores = scores.masked_fill(later, -torch.inf)
    attended = (scores.softmax(-1) @ v).transpose(1, 2).flatten(2).to(qkv.dtype)
    y = F.linear(attended.float(), weight.float(), None if bias is None else bias.float())
    return (y + residual.float()).to(qkv.dtype)
