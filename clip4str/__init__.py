"""clip4str: run trained CLIP4STR scene text recognisers fast, small and with the same answers.

The folders beside this file are symbolic links to the project's rooms. Importing this package imports nothing heavy;
names load on first use.
"""

from __future__ import annotations

TYPE_CHECKING = False  # typing's, which takes milliseconds to load in which Ctrl-C is a traceback
if TYPE_CHECKING:
    from typing import Any

    from clip4str.core.errors import Clip4StrError
    from clip4str.model import Clip4Str, load_checkpoint
    from clip4str.runtime import Recognizer, Word

__version__ = "0.1.0"

# Every room may import those before it. A new one is listed here and linked beside this file: packaging, the command
# table and the test of import directions find it by that.
ROOMS = ("core", "model", "kernels", "runtime", "export", "data", "training", "video", "serving", "benchmarks")

_LAZY = {
    "Recognizer": "clip4str.runtime",
    "Word": "clip4str.runtime",
    "Clip4StrError": "clip4str.core.errors",
    "load_checkpoint": "clip4str.model",
    "Clip4Str": "clip4str.model",
}
__all__ = ["Clip4Str", "Clip4StrError", "Recognizer", "Word", "__version__", "load_checkpoint"]


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(_LAZY[name]), name)
    raise AttributeError(f"module 'clip4str' has no attribute {name!r}")
