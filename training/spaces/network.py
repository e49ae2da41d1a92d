"""The splitter: a line's picture in, for every four columns the probability that they belong to a word.

A few convolutions fold the height away, a few dilated ones along the line see 45 columns to either side: what is a gap
between words depends on the gaps between the letters beside it.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn


def _block(taken: int, given: int, stride: tuple[int, int]) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(taken, taken, 3, stride, 1, groups=taken, bias=False),
        nn.BatchNorm2d(taken),
        nn.Conv2d(taken, given, 1, bias=False),
        nn.BatchNorm2d(given),
        nn.ReLU(),
    )


def _along(width: int, dilation: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv1d(width, width, 5, padding=2 * dilation, dilation=dilation, bias=False),
        nn.BatchNorm1d(width),
        nn.ReLU(),
    )


class Splitter(nn.Module):
    """(N, 3, 32, W) float32, 0..1 less the line's mean colour, W a multiple of 4 -> logits (N, W / 4)."""

    def __init__(self, width: int = 48) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 2, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU())
        self.fold = nn.Sequential(_block(16, 32, (2, 2)), _block(32, width, (2, 1)), _block(width, width, (2, 1)))
        self.across = nn.Conv2d(width, width, (2, 1))
        self.along = nn.ModuleList(_along(width, dilation) for dilation in (1, 2, 4, 1))
        self.head = nn.Conv1d(width, 1, 1)

    def forward(self, lines: Tensor) -> Tensor:
        x = self.across(self.fold(self.stem(lines))).squeeze(2)
        for layer in self.along:
            x = x + layer(x)
        return self.head(x).squeeze(1)


class Exported(nn.Module):
    """With probabilities instead of logits, for ONNX."""

    def __init__(self, splitter: Splitter) -> None:
        super().__init__()
        self.splitter = splitter

    def forward(self, lines: Tensor) -> Tensor:
        return torch.sigmoid(self.splitter(lines))
