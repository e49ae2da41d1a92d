"""Cross-attention of up to 32 queries over two memory segments under one softmax."""

from .api import attend_memory, cross_attention
from .config import AttentionConfig, candidates, configuration

__all__ = ["AttentionConfig", "attend_memory", "candidates", "configuration", "cross_attention"]
