"""The network in plain torch: what every export and kernel is held against."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .checkpoint import load_checkpoint, save_checkpoint
    from .clip4str import Clip4Str
    from .config import Config, config_from_shapes

__all__ = ["Clip4Str", "Config", "config_from_shapes", "load_checkpoint", "save_checkpoint"]

_HOMES = {
    "Clip4Str": "clip4str", "Config": "config", "config_from_shapes": "config", "load_checkpoint": "checkpoint",
    "save_checkpoint": "checkpoint",
}  # fmt: skip


def __getattr__(name: str) -> Any:
    """Where torch is missing, what does not need it is there: the sizes of networks, for a command's help."""
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".{_HOMES[name]}", __name__), name)
