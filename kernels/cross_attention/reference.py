"""Plain torch: what the kernel computes. float32 arithmetic; queries and answers are rounded to the dtype."""

from __future__ import annotations

import torch
from torch import Tensor

from ..linear.reference import linear


def attend_memory(
    x: Tensor,
    memory: Tensor,
    text: Tensor | None = None,
    *,
    query_weight: Tensor,
    query_bias: Tensor | None,
    heads: int,
    out: Tensor | None = None,
) -> Tensor:
    q = linear(x, query_weight, query_bias, normalize=True)
    q = q.unflatten(-1, (heads, -1)).transpose(1, 2).float()  # [N, h, T, e]
    segments = memory if text is None else torch.cat((memory, text), 3)
    k, v = segments.float().unbind(1)  # [N, h, M + X, e]
    y = (torch.softmax(q @ k.transpose(-1, -2), -1) @ v).transpose(1, 2).flatten(2).to(x.dtype)  # [N, T, d]
    y = y.contiguous()  # with one feature per head, flatten returned a view
    return y if out is None else out.copy_(y)


def cross_attention(
    x: Tensor,
    memory: Tensor,
    text: Tensor | None = None,
    *,
    query_weight: Tensor,
    query_bias: Tensor | None,
    out_weight: Tensor,
    out_bias: Tensor | None,
    heads: int,
    out: Tensor | None = None,
) -> Tensor:
    attended = attend_memory(x, memory, text, query_weight=query_weight, query_bias=query_bias, heads=heads)
    return linear(attended, out_weight, out_bias, residual=x, out=out)
