"""One CUDA graph at a time is captured in a process, whichever backend captures it."""

from __future__ import annotations

import gc
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_LOCK = threading.Lock()


@contextmanager
def capturing() -> Iterator[None]:
    """While a graph is captured. CUDA forbids in every thread what would wait for the whole device meanwhile, as the
    beginning of another capture does. Garbage collection is held off: memory freed by it in this thread would end the
    capture, too."""
    with _LOCK:
        enabled = gc.isenabled()
        gc.disable()
        try:
            yield
        finally:
            if enabled:
                gc.enable()


@contextmanager
def nothing_captured() -> Iterator[None]:
    """While what would break another thread's capture is done."""
    with _LOCK:
        yield
