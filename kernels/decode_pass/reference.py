"""The first and the last step of a decoder pass in plain torch: the specification of kernel.py. cross_attention and
linear run between. Float32 arithmetic, rounded where the kernels round: stored results and normalised rows."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from clip4str.core.text import END

from ..linear.reference import normalize_rows
from .weights import DecoderWeights


def self_attention(weights: DecoderWeights, ids: Tensor | None, mode: str, keep: Tensor | None, n: int) -> Tensor:
    """Self-attention over the start token and ids[:, :-1], residual included: x1 (n, T, d)."""
    w, position = weights, torch.arange(weights.steps, device=weights.device)
    content = torch.full((n, w.steps), w.start, device=w.device)
    if mode != "start" and ids is not None:
        content[:, 1:] = ids[:, :-1].clamp(0, w.tokens - 1)
    scores = w.scores[position, content, :, : w.steps].permute(0, 2, 3, 1)  # [n, h, T queries, T content]
    seen = visible(mode, keep, n, w.steps, w.device)[:, None]
    attention = scores.masked_fill(~seen, -torch.inf).softmax(-1)
    values = w.values[position, content].float().flatten(1, 2)  # [n, T x h, d]
    return (w.base + attention.permute(0, 2, 3, 1).flatten(2) @ values).to(w.dtype)


def visible(mode: str, keep: Tensor | None, n: int, steps: int, device: torch.device) -> Tensor:
    """Which content position j query i (both last) may see: (n, T, T) bool. Always j = 0, the start token."""
    j = torch.arange(steps, device=device)
    i = j[:, None]
    if mode == "start":
        seen = (j == 0) & (i >= 0)
    elif mode == "causal" or keep is None:
        seen = j <= i
    else:
        return (j != i + 1) & (j <= keep.clamp(min=0)[:, None, None])
    return seen.expand(n, -1, -1)


def head(
    weights: DecoderWeights, x: Tensor, before: Tensor | None, limit: Tensor | None, through_last: bool = False
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """ids (N, T) int32, probs (N, T), last (N,) int32, unsettled (N,) int32 and logits (N, T, C) of x (N, T, d).

    before: the ids that the pass was given, where `unsettled` is wanted. through_last: is the id at `last` compared?
    """
    logits = F.linear(normalize_rows(x).float(), weights.head_weight.float(), weights.head_bias)
    ids = logits.argmax(-1).int()
    probs = logits.softmax(-1).amax(-1)
    position = torch.arange(x.shape[1], device=x.device, dtype=torch.int32)
    last = torch.where(ids == END, position, x.shape[1]).amin(1)
    last = torch.minimum(last, limit if limit is not None else last.new_tensor(x.shape[1] - 1)).int()
    if before is None:
        unsettled = torch.zeros_like(last)
    else:
        unsettled = ((ids != before) & (position < last[:, None] + through_last)).any(1).int()
    return ids, probs, last, unsettled, logits
