"""Which layers TensorRT fused, and in which types they compute, read off what it says at the end of a build.

With detailed profiling verbosity and a verbose logger its last messages list the engine's layers, one line each: name,
kind, tensors with their types, and the ONNX nodes that went in. A name such as `__myl_FcAddMulSigmMul_myl0_12` spells
what was fused (Fc: a matrix product; MaxrSubExpSum: a softmax; Cast, Move, Resh, Tran, Slic, Conc: nothing but moving);
`_gemm_mha_v2_...` is a whole attention. The format is no interface: what is not understood is left out.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from clip4str.runtime.bundle import Manifest

_LINE = re.compile(
    r"Name: (?P<name>.*?), LayerType: (?P<kind>\w+), Inputs: (?P<inputs>.*?)(?:, Constants: (?P<constants>.*?))?"
    r", Outputs: (?P<outputs>.*?), TacticName: .*?(?:Metadata: (?P<metadata>.*))?$"
)
_TENSOR = re.compile(r"Name: (?P<name>.*?), Dimensions: \[(?P<sizes>[-\d,]*)\].*?Datatype: (?P<type>\w+)")
_FUSED = re.compile(r"_*myl_([A-Za-z]+)_myl\d+_\d+$")
_MOVES = {"Cast", "Conc", "Move", "Repl", "Resh", "Slic", "Tran"}
_EIGHT_BITS = ("Int8", "FP8")
_BOOKKEEPING = {"shape_call", "signal", "wait"}  # on the host, and between streams


@dataclass(frozen=True)
class Tensor:
    """sizes: -1 where they vary. type: "Half", "Int8", "FP8", "Float", ..."""

    name: str
    sizes: tuple[int, ...]
    type: str

    @property
    def elements(self) -> int:
        return math.prod(abs(size) for size in self.sizes)


@dataclass(frozen=True)
class Layer:
    """One layer of an engine. onnx: the nodes that went into it."""

    name: str
    kind: str
    inputs: tuple[Tensor, ...]
    constants: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    onnx: tuple[str, ...]

    @cached_property
    def fused(self) -> tuple[str, ...]:
        """What its name spells: ("Fc", "Add", "Add")"""
        found = _FUSED.match(self.name)
        return tuple(re.findall(r"[A-Z][a-z]*", found[1])) if found else ()

    @property
    def is_launch(self) -> bool:
        return self.kind not in _BOOKKEEPING

    @property
    def is_attention(self) -> bool:
        return "_mha" in self.name

    @property
    def is_product(self) -> bool:
        """A matrix product, alone or with what follows it; convolutions and attentions are none."""
        return not self.is_attention and (self.kind == "gemm" or "Fc" in self.fused)

    @property
    def is_softmax(self) -> bool:
        """A softmax by itself: an attention that was not fused, or the decoders' probabilities."""
        return "Exp" in self.fused

    @property
    def is_move(self) -> bool:
        """Computes nothing: other types, another order."""
        return self.kind == "reformat" or (bool(self.fused) and set(self.fused) <= _MOVES)

    @property
    def unpacks_weights(self) -> bool:
        """Turns 8-bit weights into wider ones, at every run: the product after it gains nothing."""
        small = any(t.type in _EIGHT_BITS and len(t.sizes) > 1 for t in self.constants)
        return small and not self.is_product and not self.is_attention

    @property
    def product_type(self) -> str:
        """Of a matrix product: the wider of what goes in, "Int8" or "FP8" only if both sides are."""
        types = {self.inputs[0].type} if self.inputs else set()
        weights = max((*self.inputs[1:], *self.constants), key=lambda t: t.elements, default=None)
        types |= {weights.type} if weights is not None else set()
        return next(
            (t for t in ("Float", "Half") if t in types), next((t for t in _EIGHT_BITS if types == {t}), "other")
        )


@dataclass(frozen=True)
class Facts:
    """Of one engine."""

    layers: tuple[Layer, ...]

    @property
    def launches(self) -> int:
        return sum(layer.is_launch for layer in self.layers)

    @property
    def attentions(self) -> list[Layer]:
        return [layer for layer in self.layers if layer.is_attention]

    @property
    def softmaxes(self) -> list[Layer]:
        return [layer for layer in self.layers if layer.is_softmax]

    @property
    def moves(self) -> list[Layer]:
        return [layer for layer in self.layers if layer.is_move]

    @property
    def unpacked(self) -> list[Layer]:
        return [layer for layer in self.layers if layer.unpacks_weights]

    @property
    def products(self) -> Counter[str]:
        """{type: how many matrix products compute in it}"""
        return Counter(layer.product_type for layer in self.layers if layer.is_product)

    def products_of(self, kind: str) -> set[str]:
        """ONNX nodes that went into products of a type."""
        return {node for layer in self.layers if layer.is_product and layer.product_type == kind for node in layer.onnx}

    def doubts(self, stage: str, manifest: Manifest) -> list[str]:
        """What makes a stage slower than it need be, in words: towers of half or 8-bit engines fuse every attention."""
        if manifest.precision == "fp32":  # TensorRT has fused attention for narrower types only
            return []
        found = []
        if stage in ("image", "text") and self.softmaxes:
            found.append(f"{len(self.softmaxes)} attentions are not fused: please report this with --verbose's output")
        if self.unpacked:
            found.append(f"{len(self.unpacked)} products unpack their 8-bit weights at every run: slower than fp16")
        return found

    def to_dict(self) -> dict[str, Any]:
        return {
            "launches": self.launches,
            "attentions": len(self.attentions),
            "products": dict(sorted(self.products.items())),
            "unpacked": len(self.unpacked),
        }

    def __str__(self) -> str:
        products = ", ".join(f"{n} {kind.lower()}" for kind, n in sorted(self.products.items()))
        return f"{self.launches} launches, {len(self.attentions)} fused attentions, products: {products or 'none'}"


def facts_of(text: str) -> Facts | None:
    """Of a message that lists layers; None if it lists none that we understand."""
    layers = [layer for line in text.splitlines() if (layer := _layer(line)) is not None]
    return Facts(tuple(layers)) if layers else None


def _layer(line: str) -> Layer | None:
    found = _LINE.match(line)
    if found is None:
        return None
    inputs, constants, outputs = (_tensors(found[part] or "") for part in ("inputs", "constants", "outputs"))
    onnx = re.findall(r"\[ONNX Layer: ([^\]]*)\]", found["metadata"] or "")
    return Layer(found["name"], found["kind"].lower(), inputs, constants, outputs, tuple(onnx))


def _tensors(text: str) -> tuple[Tensor, ...]:
    return tuple(Tensor(m["name"], _sizes(m["sizes"]), m["type"]) for m in _TENSOR.finditer(text))


def _sizes(text: str) -> tuple[int, ...]:
    return tuple(int(size) for size in text.split(",") if size)
