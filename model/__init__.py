"""The network in plain torch: what every export and kernel is held against."""

from .checkpoint import load_checkpoint, save_checkpoint
from .clip4str import Clip4Str
from .config import Config, config_from_shapes

__all__ = ["Clip4Str", "Config", "config_from_shapes", "load_checkpoint", "save_checkpoint"]
