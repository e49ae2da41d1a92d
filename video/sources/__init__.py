"""Where frames come from: files, cameras, streams, folders, pipes, the caller."""

from .base import Source
from .opening import open_source

__all__ = ["Source", "open_source"]
