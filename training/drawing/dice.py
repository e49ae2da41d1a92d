"""Random parameters for a batch of words, drawn in one go on the device, and small helpers for tensors per word."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

_BLOCK = 128


class Dice:
    """Every call gives one value per word, [n]; the same generator state gives the same values."""

    def __init__(self, count: int, generator: torch.Generator) -> None:
        self.count, self.generator, self.device = count, generator, generator.device
        self._even: list[Tensor] = []
        self._normal: list[Tensor] = []

    def _rand(self) -> Tensor:
        if not self._even:  # one kernel for many parameters: a launch costs more than the numbers
            block = torch.rand(_BLOCK, self.count, generator=self.generator, device=self.device)
            self._even = list(block.unbind())
        return self._even.pop()

    def uniform(self, low: float | Tensor = 0.0, high: float | Tensor = 1.0) -> Tensor:
        if isinstance(low, Tensor) or isinstance(high, Tensor):
            return self._rand() * (high - low) + low
        return torch.rsub(self._rand(), low, alpha=low - high)  # low + (high - low) * u in one kernel

    def normal(self, mean: float | Tensor = 0.0, deviation: float | Tensor = 1.0) -> Tensor:
        if not self._normal:
            block = torch.randn(_BLOCK, self.count, generator=self.generator, device=self.device)
            self._normal = list(block.unbind())
        return self._normal.pop() * deviation + mean

    def chance(self, share: float) -> Tensor:
        """bool."""
        return self._rand() < share

    def sign(self) -> Tensor:
        return (self._rand() < 0.5) * 2.0 - 1.0

    def index(self, below: int) -> Tensor:
        """int64, 0 to below - 1."""
        return (self._rand() * below).long().clamp_max_(below - 1)

    def pick(self, values: Sequence[float]) -> Tensor:
        return self.table(values)[self.index(len(values))]

    def mixture(self, parts: Sequence[tuple[float, float, float]]) -> Tensor:
        """uniform(low, high) of a part (share, low, high) chosen by its share; shares add up to 1."""
        share, low, high = self.table(parts).unbind(1)
        part = torch.searchsorted(share.cumsum(0)[:-1].contiguous(), self._rand())
        return torch.lerp(low[part], high[part], self._rand())

    def field(self, *shape: int) -> Tensor:
        """Standard normal values, [n, *shape]."""
        return torch.randn(self.count, *shape, generator=self.generator, device=self.device)

    def subset(self, share: float) -> Tensor:
        """Rows, int64, a fixed share of the batch: where an effect is too costly to compute for all words."""
        order = torch.randperm(self.count, generator=self.generator, device=self.device)
        return order[: max(1, round(share * self.count))]

    def table(self, values: Sequence[float] | Sequence[Sequence[float]]) -> Tensor:
        return constant(tuple(tuple(v) if isinstance(v, Sequence) else v for v in values), self.device)


_constants: dict[tuple, Tensor] = {}


def constant(values: tuple, device: torch.device) -> Tensor:
    """A small float32 tensor, copied to the device once: a copy would make the host wait."""
    key = (values, device)
    if key not in _constants:
        _constants[key] = torch.tensor(values, device=device)
    return _constants[key]


def plane(values: Tensor) -> Tensor:
    """[n] -> [n, 1, 1]."""
    return values[:, None, None]
