"""clip4str: run trained CLIP4STR scene text recognisers fast, small and with the same answers.

The folders beside this file are symbolic links to the project's rooms (model, kernels, runtime,
export, training, benchmarks). Importing this package imports nothing heavy; names load on first use.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_LAZY = {
    "Recognizer": "clip4str.runtime",
    "Word": "clip4str.runtime",
    "Clip4StrError": "clip4str.runtime",
    "load_checkpoint": "clip4str.model",
    "Clip4Str": "clip4str.model",
}
__all__ = ["__version__", *_LAZY]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'clip4str' has no attribute {name!r}")
