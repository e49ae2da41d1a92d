"""y = act(n(x) W^T + bias) + residual: a matrix product with the operations before and after it."""

from .api import activate_, add_product_, adds_in_place, linear, normalize, quick_gelu_
from .config import LinearConfig, candidates, configuration

__all__ = [
    "LinearConfig",
    "activate_",
    "add_product_",
    "adds_in_place",
    "candidates",
    "configuration",
    "linear",
    "normalize",
    "quick_gelu_",
]
