"""Resizes pictures of any sizes to the network's input, all in one launch, bit for bit as Pillow does."""

from .api import resize

__all__ = ["resize"]
