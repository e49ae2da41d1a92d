"""A page to watch in a browser: the live picture with its words, the table of words, how the sources are."""

from .sink import View

__all__ = ["View"]
