"""The towers' products in the torch network: watched, or computed as eight bits will.

Both look at every call of torch's `linear` and know a product by its weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode

from clip4str.export.quantization.arithmetic import (
    Numbers,
    Range,
    activation_scale,
    factored_weights,
    quantised_weights,
)
from clip4str.export.quantization.plan import Quantization, parameters_of
from clip4str.model.clip4str import Clip4Str

MOST_VALUES = 1 << 27  # of all samples together: half a GB

Product = Callable[[str, Tensor, Tensor, Tensor], Tensor]


class _Instead(TorchFunctionMode):
    """While active, `compute(product, x, weight, bias)` stands for the towers' products."""

    def __init__(self, model: Clip4Str, compute: Product) -> None:
        super().__init__()
        self.names = {id(weight): product for product, weight in parameters_of(model, model.config).items()}
        self.compute = compute

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is F.linear and (product := self.names.get(id(args[1]))) is not None:
            return self.compute(product, *args)
        return func(*args, **(kwargs or {}))


class Watch(_Instead):
    """Keeps, of what goes into every product: each feature's least and greatest value, and a sample of rows.

    calls: how many calls to come share the sample.
    """

    def __init__(self, model: Clip4Str, calls: int) -> None:
        super().__init__(model, self._look)
        self.peaks: dict[str, tuple[np.ndarray, np.ndarray]] = {}
        self._rows: dict[str, list[np.ndarray]] = {}
        features = sum(weight.shape[1] for weight in parameters_of(model, model.config).values())
        self._per_call = max(16, min(2048, MOST_VALUES // features) // max(1, calls))

    def _look(self, product: str, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        values = x.detach().flatten(0, -2).float().numpy()
        low, high = values.min(axis=0), values.max(axis=0)
        if product in self.peaks:
            low, high = np.minimum(low, self.peaks[product][0]), np.maximum(high, self.peaks[product][1])
        self.peaks[product] = low, high
        places = np.linspace(0, len(values) - 1, min(len(values), self._per_call)).astype(int)
        self._rows.setdefault(product, []).append(values[places])
        return F.linear(x, weight, bias)

    def sample(self, product: str) -> np.ndarray:
        """Rows (n, in) from all calls."""
        return np.concatenate(self._rows[product])


class Emulate(_Instead):
    """Rounds as the products of a plan with fixed ranges do; sums are float32."""

    def __init__(self, model: Clip4Str, plan: Quantization) -> None:
        super().__init__(model, self._product)
        self.plan = plan

    def _product(self, product: str, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        if not self.plan.covers(product):
            return F.linear(x, weight, bias)
        w = weight.detach().numpy()
        if (factors := self.plan.folds.get(product)) is not None:
            x, w = x / torch.from_numpy(factors), w * factors
        floats, activations = np.float16 if self.plan.precision == "fp16" else np.float32, self.plan.activations
        if self.plan.target == "gpu":
            numbers, scale, factors = factored_weights(w, activations)
            scales = scale.astype(np.float32) * factors.astype(np.float32)
        else:
            numbers, scales = quantised_weights(w)
        rounded = torch.from_numpy(numbers.astype(np.float32) * scales[:, None])
        return F.linear(fake_quantised(x, self.plan.ranges[product], activations, floats), rounded, bias)


def fake_quantised(x: Tensor, range_: Range, numbers: Numbers, floats: type[np.floating] = np.float32) -> Tensor:
    """Values as they are after rounding to eight bits and back, by a scale of type `floats`."""
    place = activation_scale(range_, numbers, floats)
    scale = float(place.scale)
    if numbers.floating:
        return (x / scale).clamp(numbers.least, numbers.most).to(torch.float8_e4m3fn).to(x.dtype).mul(scale)
    return (torch.round(x / scale) + place.zero).clamp(numbers.least, numbers.most).sub(place.zero).mul(scale)


def stage_outputs(model: Clip4Str, tower: str, inputs: Any) -> Tensor:
    """All keys and values that a tower's stage gives, in one vector."""
    values = model.image(inputs)[:2] if tower == "image" else (model.text(inputs),)
    return torch.cat([value.flatten() for value in values])


def relative_error(model: Clip4Str, plan: Quantization, tower: str, inputs: Any, exact: Tensor) -> float:
    """|difference| / |exact| of a stage's outputs under a plan, as lengths of vectors."""
    with torch.inference_mode(), Emulate(model, plan):
        got = stage_outputs(model, tower, inputs)
    return float((got - exact).norm() / exact.norm())


def exact_outputs(model: Clip4Str, inputs: Mapping[str, Any]) -> dict[str, Tensor]:
    """tower -> its stage's outputs for {tower: inputs}"""
    with torch.inference_mode():
        return {tower: stage_outputs(model, tower, x) for tower, x in inputs.items()}
