"""CLIP's byte-pair encoding of predicted words on the device: no string visits the host. See api.tokenize."""

from .api import tokenize
from .config import TokenizeConfig, candidates, configuration
from .tables import TokenizerTables

__all__ = ["TokenizeConfig", "TokenizerTables", "candidates", "configuration", "tokenize"]
