"""A whole frame on the GPU, shrunk to a small picture for who looks at it on the host. See api.thumbnail."""

from .api import thumbnail
from .config import ThumbnailConfig, candidates, configuration

__all__ = ["ThumbnailConfig", "candidates", "configuration", "thumbnail"]
