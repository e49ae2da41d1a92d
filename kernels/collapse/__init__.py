"""A draft head's frames to a first guess at every word, on the device. See api.collapse."""

from .api import collapse
from .config import CollapseConfig, candidates, configuration

__all__ = ["CollapseConfig", "candidates", "collapse", "configuration"]
