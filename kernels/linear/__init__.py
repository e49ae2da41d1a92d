"""y = act(n(x) W^T + bias) + residual: a matrix product with the operations before and after it."""

from .api import activate_, add_product_, adds_in_place, linear, normalize, quick_gelu_, split_counters
from .config import LinearConfig, candidates, configuration, descriptor_configuration, split_configuration

__all__ = [
    "LinearConfig",
    "activate_",
    "add_product_",
    "adds_in_place",
    "candidates",
    "configuration",
    "descriptor_configuration",
    "linear",
    "normalize",
    "quick_gelu_",
    "split_configuration",
    "split_counters",
]
