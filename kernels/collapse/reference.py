"""The specification of `collapse` in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor


def collapse_reference(logits: Tensor, steps: int) -> Tensor:
    """As api.collapse."""
    return collapse_frames_reference(logits.argmax(dim=-1), steps, logits.shape[2])


def collapse_frames_reference(ids: Tensor, steps: int, classes: int) -> Tensor:
    """As api.collapse_frames, of ids of any integer type."""
    shows = (ids > 0) & (ids < classes)
    shows[:, 1:] &= ids[:, 1:] != ids[:, :-1]
    places = shows.cumsum(dim=1) - 1
    kept = shows & (places < steps - 1)
    words = torch.zeros((len(ids), steps), dtype=torch.int32, device=ids.device)
    # Dropped ids go to the last column, which never holds a character.
    return words.scatter_(1, torch.where(kept, places, steps - 1), torch.where(kept, ids, 0).int())
