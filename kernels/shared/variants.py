"""What is compiled ahead of time, as data: `kernels/NAME/aot.py` lists variants, `kernels/aot.py` compiles them.

Every operator has a function

    def variants(network: Network, dtype: str, capability: tuple[int, int]) -> list[Variant]

dtype: "fp16", "bf16" or "fp32", as Triton writes them. capability: (8, 7) for Jetson Orin, as torch gives it. It must
work without a GPU, and take constexprs, num_warps and num_stages from the operator's own configuration(), so that what
is shipped is what is tested. Where the configuration depends on the batch: one Variant per configuration, each with
its range of the batch in `where`.

The library picks and launches by name, from this data alone. The values it knows for a launch are the kernel's own
arguments and what the operator's section of clip4str_kernels.h adds (n, d, has_logits, ...); `where` and `grid` are
written in them. All names are listed in kernels/library/names.def.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar


@dataclass(frozen=True)
class Network:
    """The dimensions that kernels are specialised for; names as in model.config.Config."""

    name: str
    d: int  # width of decoders and memory
    memory: int  # image tokens M = 1 + patches
    image_width: int
    text_width: int
    image_size: tuple[int, int]  # height, width in pixels
    heads: int = 8  # of the decoders
    text: int = 16  # text tokens
    steps: int = 26  # T
    classes: int = 95  # C
    tokens: int = 97  # K

    @property
    def mlp(self) -> int:
        return 4 * self.d

    @property
    def head_dim(self) -> int:
        return self.d // self.heads


NETWORKS = {
    network.name: network
    for network in (
        Network("small", 192, 33, 192, 128, (32, 128)),
        Network("base32", 512, 50, 768, 512, (224, 224)),
        Network("base16", 512, 197, 768, 512, (224, 224)),
        Network("large", 768, 257, 1024, 768, (224, 224)),
        Network("huge", 1024, 257, 1280, 1024, (224, 224)),
    )
}


def network_of(*, d: int, memory: int, heads: int, text: int, steps: int, classes: int, mlp: int) -> Network | None:
    """The one whose decoders have these dimensions; None if no kernels are compiled for them."""
    sizes = (d, memory, heads, text, steps, classes, classes + 2, mlp)
    for n in NETWORKS.values():
        if sizes == (n.d, n.memory, n.heads, n.text, n.steps, n.classes, n.tokens, n.mlp):
            return n
    return None


ACTIVATIONS = ("none", "gelu", "quick_gelu")  # of a linear operator, numbered so in the compiled kernels
CAPABILITIES = ((8, 0), (8, 6), (8, 7), (8, 9), (9, 0), (10, 0), (11, 0), (12, 0))

MOST = 2**31 - 1  # the end of a range without an upper bound
T = TypeVar("T")
Where = Mapping[str, int | tuple[int, int]]


@dataclass(frozen=True)
class Variant:
    """One kernel with all its compile-time values.

    launch: which launch of which operator it serves, "decode_pass.head". The first variant of a launch whose `where`
        holds is taken, so several may serve overlapping ranges.
    kernel: the @triton.jit function.
    types: Triton type of every argument that is not a constexpr, in any order: "*fp16", "*i32", "*u8", "i32", "i64";
        of a descriptor with what it loads at a time, "tensordesc<fp16[128,64]>".
    constexprs: value of every tl.constexpr argument; None for a pointer that this variant is compiled without.
    where: conditions on the launch's values; a number must be equal, (least, most) is inclusive.
    grid: up to three expressions, the number of programs along x, y, z: products of names, numbers and ceilings,
        such as ("n", "ceil(d / 64)") or ("ceil(rows / 16) * ceil(columns / 64)",).
    aligned: arguments that are multiples of 16 (pointers: in bytes), so that the compiler may use wide loads; None for
        all pointers. The library checks them at every launch.
    matrix: it multiplies matrices, so tensor-core instructions are expected (not for float32).
    """

    launch: str
    kernel: Any
    types: Mapping[str, str]
    constexprs: Mapping[str, Any]
    where: Where
    grid: tuple[str, ...]
    num_warps: int = 4
    num_stages: int = 2
    aligned: tuple[str, ...] | None = None
    matrix: bool = True
    options: Mapping[str, Any] = field(default_factory=dict)  # further options of the compiler, e.g. maxnreg

    @property
    def arguments(self) -> list[str]:
        """The kernel's arguments in order, constexprs left out: what a launch passes."""
        return [name for name in self.kernel.arg_names if name not in self.constexprs]

    @property
    def parameters(self) -> int:
        """How many the compiled kernel has for them: a descriptor's shape and strides, too."""
        types = [self.types[name] for name in self.arguments]
        return sum(3 + 2 * t.count(",") if t.startswith("tensordesc") else 1 for t in types)

    @property
    def multiples_of_16(self) -> list[str]:
        if self.aligned is not None:
            return [name for name in self.arguments if name in self.aligned]
        return [name for name in self.arguments if self.types[name].startswith("*")]


def ranges(configuration: Callable[[int], T], most: int = MOST) -> list[tuple[tuple[int, int], T]]:
    """A batch-dependent configuration as ((least, most), configuration) pairs that cover 1 to MOST.

    most: its configuration holds for everything above it. Compares powers of two and bisects between those that differ:
    a change that is undone before the next power of two is missed.
    """
    pairs: list[tuple[tuple[int, int], T]] = []
    least, chosen = 1, configuration(1)
    for exponent in range(1, 32):
        end = min(2**exponent, most)
        while configuration(end) != chosen:
            low, high = least, end  # the first that differs lies in (low, high]
            while high - low > 1:
                middle = (low + high) // 2
                low, high = (middle, high) if configuration(middle) == chosen else (low, middle)
            pairs.append(((least, low), chosen))
            least, chosen = high, configuration(high)
    return [*pairs, ((least, MOST), chosen)]


def torch_dtype(name: str) -> Any:
    """ "fp16" -> torch.float16"""
    import torch

    return {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}[name]


def holds(where: Where, values: Mapping[str, int]) -> bool:
    """Does a variant serve a launch with these values?"""
    ranges = {name: (w, w) if isinstance(w, int) else w for name, w in where.items()}
    return all(name in values and least <= values[name] <= most for name, (least, most) in ranges.items())


_FACTOR = re.compile(r"(?:ceil\(\s*(\w+)\s*/\s*(\d+)\s*\)|(\w+))$")


def grid_factors(expression: str) -> list[tuple[str | int, int]]:
    """ "ceil(rows / 16) * n" -> [("rows", 16), ("n", 1)]. Raises ValueError if it is no product of such factors."""
    factors: list[tuple[str | int, int]] = []
    for factor in expression.split("*"):
        match = _FACTOR.match(factor.strip())
        if match is None:
            raise ValueError(
                f"grid expression {expression!r}: {factor.strip()!r} is not NAME, NUMBER or ceil(NAME / NUMBER)"
            )
        name = match.group(1) or match.group(3)
        factors.append((int(name) if name.isdigit() else name, int(match.group(2) or 1)))
    return factors


def grid_size(grid: tuple[str, ...], values: Mapping[str, int]) -> tuple[int, int, int]:
    """The grid that the library launches for these values; kernels/library/launch.c computes the same."""
    sizes = [
        math.prod(
            -(-(name if isinstance(name, int) else values[name]) // divisor) for name, divisor in grid_factors(axis)
        )
        for axis in (*grid, "1", "1", "1")[:3]
    ]
    return sizes[0], sizes[1], sizes[2]


@dataclass(frozen=True)
class Entry:
    """A variant, the capability it is compiled for, the networks that it serves."""

    variant: Variant
    capability: tuple[int, int]
    networks: tuple[str, ...]
    key: str
