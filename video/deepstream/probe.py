"""What the probes share: they let every buffer pass, whatever happens, and say once what is wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from clip4str.core.errors import first_line

from .adapter import Adapter, ok

Say = Callable[[str], object]


class Probe:
    """For Pad.add_probe(Gst.PadProbeType.BUFFER, probe). say: gets a line for each kind of trouble, once; None: it goes
    to stderr. pyds: the module, None for the installed one. Raises BackendError where there is none."""

    def __init__(self, say: Say | None = None, pyds: Any = None) -> None:
        self._adapter, self._say, self._ok = Adapter(pyds), say or _to_stderr, ok()
        self._said: set[str] = set()

    def __call__(self, pad: Any, info: Any, *_: Any) -> Any:
        buffer = info.get_buffer()
        if buffer is not None:
            try:
                self.process(buffer)
            except Exception as error:  # raised on, it would reach GStreamer as "drop this buffer"
                self.trouble(error)
        return self._ok

    def process(self, buffer: Any) -> None:
        """One Gst.Buffer, in the pipeline's thread."""
        raise NotImplementedError

    def trouble(self, what: object) -> None:
        """Said the first time."""
        line = f"{type(self).__name__}: {first_line(what)}"
        if line not in self._said and len(self._said) < 32:
            self._said.add(line)
            self._say(line)


def _to_stderr(line: str) -> None:
    print(line, file=sys.stderr)
