"""Crops quadrilaterals of a frame and makes them the network's input, bit for bit as Pillow does."""

from .api import crop_resize
from .config import CropConfig, candidates, configuration

__all__ = ["CropConfig", "candidates", "configuration", "crop_resize"]
