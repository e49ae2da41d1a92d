"""From a draft head's frames to a first guess of each word, on the device. See api.collapse."""

from .api import collapse, collapse_frames
from .config import CollapseConfig, candidates, configuration

__all__ = ["CollapseConfig", "candidates", "collapse", "collapse_frames", "configuration"]
