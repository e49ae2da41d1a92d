"""The specification of `thumbnail` is core.thumbnail, in numpy; here on tensors."""

from __future__ import annotations

import torch
from torch import Tensor

from clip4str.core.thumbnail import thumbnail


def thumbnail_reference(
    luma: Tensor, chroma: Tensor | None, size: tuple[int, int], *, layout: str, colour: bool, matrix: str,
    full_range: bool, out: Tensor,
) -> Tensor:  # fmt: skip
    """api.thumbnail after validation, on the CPU."""
    frame = luma.numpy() if chroma is None else (luma.numpy(), chroma.numpy())
    made = thumbnail(frame, size, layout, colour=colour, matrix=matrix, full_range=full_range)
    return out.copy_(torch.from_numpy(made))
