"""y = x + attention Wo^T + bo over few tokens: a tower's self-attention and what follows it, in one launch."""

from .api import MOST_HEAD_DIM, MOST_LENGTH, fits, short_attention
from .config import FEATURES, ShortAttentionConfig, candidates, configuration, programs

__all__ = [
    "FEATURES",
    "MOST_HEAD_DIM",
    "MOST_LENGTH",
    "ShortAttentionConfig",
    "candidates",
    "configuration",
    "fits",
    "programs",
    "short_attention",
]
