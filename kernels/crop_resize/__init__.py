"""Quadrilaterals of a frame to the network's normalised pixels, bit for bit as Pillow prepares the crops."""

from .api import crop_resize
from .config import CropConfig, candidates, configuration

__all__ = ["CropConfig", "candidates", "configuration", "crop_resize"]
