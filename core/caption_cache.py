"""Text features of captions read before."""

from __future__ import annotations

import threading
from collections import OrderedDict
from typing import Any

from .errors import UsageError


class CaptionCache:
    """Least recently used text features by caption: video repeats words. Safe to share between threads."""

    def __init__(self, size: int = 512) -> None:
        """size: captions kept. Raises UsageError if it is negative or no number."""
        if not isinstance(size, int) or size < 0:
            raise UsageError(f"the caption cache's size must be 0 or more, not {size!r}")
        self.size = size
        self._rows: OrderedDict[str, Any] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, caption: str) -> Any:
        with self._lock:
            if caption in self._rows:
                self._rows.move_to_end(caption)
            return self._rows.get(caption)

    def put(self, caption: str, row: Any) -> None:
        with self._lock:
            self._rows[caption] = row
            self._rows.move_to_end(caption)
            while len(self._rows) > self.size:
                self._rows.popitem(last=False)

    def clear(self) -> None:
        with self._lock:
            self._rows.clear()

    def __len__(self) -> int:
        return len(self._rows)
