"""What TensorRT measured while it chose kernels, kept for the next build: minutes on a board, seconds with it.

A cache that cannot be used is said to be so and started anew; it never stops a build.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from clip4str.core.atomic_files import replaced

from .library import Tools
from .listening import Listener

_MOST_BYTES = 1 << 30


def default_cache(tools: Tools) -> Path:
    """One file for each TensorRT and GPU: entries of others would be ignored."""
    home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    gpu = re.sub(r"[^A-Za-z0-9]+", "-", tools.gpu).strip("-")
    return Path(home).expanduser() / "clip4str" / f"timing-{tools.target}-{tools.version}-{gpu}.cache"


class TimingCache:
    """A file of measurements. say gets a line if it cannot be read or written."""

    def __init__(self, path: Path, say: Callable[[str], object]) -> None:
        self.path, self._say, self._data = path, say, b""
        try:
            if path.stat().st_size <= _MOST_BYTES:
                self._data = path.read_bytes()
        except FileNotFoundError:
            pass
        except OSError as error:
            say(f"timing cache {path}: cannot be read ({error.strerror or error}), started anew")

    def give(self, config: Any, listener: Listener) -> None:
        """Let a build use and extend it."""
        if self._data and not self._attach(config, listener, self._data):
            self._say(f"timing cache {self.path}: damaged, or of another TensorRT; started anew")
            self._data = b""
        if not self._data:
            self._attach(config, listener, b"")

    def keep(self, config: Any) -> None:
        """Write what a build measured, also one that failed or was stopped. Whole or not at all."""
        cache = config.get_timing_cache()
        if cache is None:
            return
        data = bytes(cache.serialize())
        if data == self._data:
            return
        self._data = data
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with replaced(self.path, durable=False) as partial:
                partial.write_bytes(data)
        except OSError as error:
            self._say(f"timing cache {self.path}: cannot be written ({error.strerror or error})")

    @staticmethod
    def _attach(config: Any, listener: Listener, data: bytes) -> bool:
        """TensorRT gives None for what it cannot use, TensorRT-RTX an empty cache and a complaint."""
        before = listener.complaints
        cache = config.create_timing_cache(data)
        return cache is not None and listener.complaints == before and bool(config.set_timing_cache(cache, False))
