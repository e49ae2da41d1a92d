"""The cases of operators' bench.py, the most wanted first."""

from __future__ import annotations

import importlib
from typing import Any

from clip4str.benchmarks.gpu.device import Gpu

_ORDER = (("base16", 64), ("base16", 1), ("small", 64), ("small", 1), ("large", 64), ("large", 1), ("base16", 8))
OTHER = len(_ORDER)  # the rank of cases that are not among the most wanted
_NETWORKS = ("small", "base32", "base16", "large", "huge")
_NO_REFERENCE = ("self_attention", "head")


def cases_of(operator: str, gpu: Gpu) -> list[Any]:
    """The most wanted first. Raises ImportError if the operator has no bench.py."""
    if gpu.kind == "cpu":  # kernels that are only part of an operator have no reference
        cases = all_cases(operator, (9, 0))
        return [c for c in cases if c.flops + c.bytes < 3e7 and c.function.__name__ not in _NO_REFERENCE][:1]
    return sorted(all_cases(operator, gpu.capability), key=lambda case: rank(case.name))


def all_cases(operator: str, capability: tuple[int, int]) -> list[Any]:
    """As bench.py lists them, which raises ImportError if it is not there."""
    module = importlib.import_module(f"clip4str.kernels.{operator}.bench")
    return list(module.cases(capability) if module.cases.__code__.co_argcount else module.cases())


def rank(name: str) -> int:
    """Of a case: its place among the most wanted, OTHER if it is none of them."""
    first = name.split(" ")[0]
    for place, (network, batch) in enumerate(_ORDER):
        if network == (first if first in _NETWORKS else "base16") and name.endswith(f"batch {batch}"):
            return place
    return OTHER
