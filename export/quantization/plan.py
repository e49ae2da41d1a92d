"""What is quantised, and how: what `linear` in blocks.py asks while it writes a graph.

Products are called as their weights are, `clip_model.visual.transformer.resblocks.3.mlp.c_fc`; four of them, in_proj,
out_proj, c_fc and c_proj, stand in every block of a tower. A unit is what goes back to higher precision as one, an
attention or an MLP: `image.3.attn`, `text.0.mlp`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from clip4str.export.graph import Graph
from clip4str.export.quantization.arithmetic import E4M3, S8, U8, Numbers, Range, activation_scale
from clip4str.model.config import Config

from . import nodes

TOWERS = {"image": "clip_model.visual.transformer.resblocks", "text": "clip_model.transformer.resblocks"}
PRODUCTS = {"attn": ("in_proj", "out_proj"), "mlp": ("c_fc", "c_proj")}
NORMS = {"in_proj": "ln_1", "c_fc": "ln_2"}  # LayerNorms that alone feed a product: what smoothing folds into
_BLOCK = {prefix: tower for tower, prefix in TOWERS.items()}


@dataclass(frozen=True)
class Quantization:
    """The plan of one bundle.

    scheme: "qdq", ranges fixed by calibration, or "dynamic", found anew in every batch. target: "gpu" (symmetric, half
    precision around it) or "cpu". weights: "s8", "u8" for CPUs that saturate, or "e4m3" for GPUs that have it, which
    activations then are too. ranges: of each product's input, as it is after smoothing. folds: product -> factors (in,)
    that its input is divided by, in the LayerNorm before it, and its weights multiplied by. kept: units that are not
    quantised.
    """

    scheme: str = "qdq"
    target: str = "cpu"
    weights: str = "s8"
    ranges: Mapping[str, Range] = field(default_factory=dict)
    folds: Mapping[str, np.ndarray] = field(default_factory=dict)
    kept: frozenset[str] = frozenset()

    @property
    def activations(self) -> Numbers:
        """What they are rounded to."""
        if self.weights == "e4m3":
            return E4M3
        return S8 if self.target == "gpu" else U8

    @property
    def name(self) -> str:
        """The bundle's precision."""
        return "fp8" if self.weights == "e4m3" else "int8"

    @property
    def precision(self) -> str:
        """Of everything that is not quantised."""
        return "fp16" if self.target == "gpu" else "fp32"

    @property
    def opset(self) -> int:
        """Scales in half precision came with 19, as did E4M3."""
        return 19 if self.target == "gpu" else 17

    def covers(self, product: str) -> bool:
        return product in self.ranges and unit_of(product) not in self.kept

    def touches(self, tower: str) -> bool:
        """Is anything of it quantised?"""
        return any(unit_of(product).startswith(f"{tower}.") for product in self.ranges if self.covers(product))

    def linear(self, g: Graph, x: str, weight: np.ndarray, bias: np.ndarray, product: str) -> str:
        """Rows (n, in) -> rows (n, out), in eight bits. weight (out, in), smoothed already."""
        if self.scheme == "dynamic":
            return nodes.dynamic_linear(g, x, weight, bias, product, self.weights)
        floats = np.float16 if self.precision == "fp16" else np.float32
        scale = activation_scale(self.ranges[product], self.activations, floats)
        x = nodes.static_input(g, x, product, scale)
        if self.target == "gpu":
            return nodes.factored_linear(g, x, weight, bias, product, self.activations)
        return nodes.static_linear(g, x, weight, bias, product, scale, self.weights)

    def folded(self, w: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """A network's weights with the smoothing of quantised products in them; in float32 it computes the same."""
        smooth = dict(w)
        for product, factors in self.folds.items():
            if self.covers(product):
                norm = norm_of(product)
                for part in (f"{norm}.weight", f"{norm}.bias"):
                    smooth[part] = w[part] / factors
                smooth[weight_of(product)] = w[weight_of(product)] * factors
        return smooth

    def keeping(self, units: frozenset[str]) -> Quantization:
        return replace(self, kept=units)


def units_of(config: Config) -> list[str]:
    """All units of a network, in order."""
    layers = {"image": config.image_layers, "text": config.text_layers}
    return [f"{tower}.{i}.{kind}" for tower in TOWERS for i in range(layers[tower]) for kind in PRODUCTS]


def products_of(unit: str) -> list[str]:
    """The names of the products in a unit."""
    tower, number, kind = unit.split(".")
    return [f"{TOWERS[tower]}.{number}.{kind}.{name}" for name in PRODUCTS[kind]]


def unit_of(product: str) -> str:
    """The unit that a product, or a module it is in, belongs to."""
    match = re.match(r"(.+)\.(\d+)\.(attn|mlp)\b", product)
    if match is None or match[1] not in _BLOCK:
        raise ValueError(f"{product} is in no block of a tower")
    return f"{_BLOCK[match[1]]}.{match[2]}.{match[3]}"


def weight_of(product: str) -> str:
    """The published name of its weight."""
    return f"{product}_weight" if product.endswith("in_proj") else f"{product}.weight"


def norm_of(product: str) -> str:
    """The LayerNorm that feeds it, "" if it is not fed by one alone."""
    block, _, name = product.rsplit(".", 2)
    return f"{block}.{NORMS[name]}" if name in NORMS else ""


def parameters_of(model: Any, config: Config) -> dict[str, Any]:
    """product -> its weight in a torch network, the very tensor"""
    tensors = dict(model.named_parameters())
    return {product: tensors[weight_of(product)] for unit in units_of(config) for product in products_of(unit)}
