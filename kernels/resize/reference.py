"""The specification of `resize`: Pillow's resize, picture by picture (crop_resize/reference.py has its arithmetic)."""

from __future__ import annotations

import torch
from torch import Tensor

from ..crop_resize.reference import normalised, resized


def resize_reference(
    pixels: Tensor, pictures: Tensor, size: tuple[int, int], *, normalization: str = "half", out: Tensor
) -> Tensor:
    """api.resize after validation, on the CPU."""
    for row, (first, height, width) in zip(out, pictures.tolist()):
        picture = pixels[first : first + 3 * height * width].view(height, width, 3).numpy()
        made = resized(lambda a, b, picture=picture: picture[a:b], (height, width), size)  # type: ignore[misc]
        row.copy_(normalised(made, normalization))
    return out


def packed(pictures: list[Tensor]) -> tuple[Tensor, Tensor]:
    """Pictures uint8 (h, w, 3) one after the other; where each begins, its height, its width: what resize takes."""
    table, first = [], 0
    for picture in pictures:
        table.append((first, *picture.shape[:2]))
        first += picture.numel()
    flat = [picture.reshape(-1) for picture in pictures] or [torch.empty(0, dtype=torch.uint8)]
    return torch.cat(flat), torch.tensor(table, dtype=torch.int32).view(-1, 3)
