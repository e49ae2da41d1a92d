"""How far a long step is: a bar on a terminal, a plain line now and then in a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

FIRST, AGAIN = 10.0, 30.0  # seconds until a log's first line, and between lines


class Progress:
    """Of `total` units (a plural) of work, None where nobody knows how many, on stderr. A log gets nothing of a step
    that is done within FIRST seconds.

    with Progress(32, "comparing words", "images") as progress:
        progress.update(8)
    """

    def __init__(self, total: int | None, what: str, unit: str, silent: bool = False) -> None:
        self.total, self.what, self.unit, self.done = total, what, unit, 0
        self._began = time.monotonic()
        self._due = float("inf") if silent else self._began + FIRST
        self._bar: Any = None
        if not silent and sys.stderr is not None and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(total=total, desc=what, unit=f" {unit}", leave=False)

    def update(self, count: int = 1) -> None:
        """So many more are done."""
        self.done += count
        now = time.monotonic()
        if self._bar is not None:
            self._bar.update(count)
        elif now >= self._due and sys.stderr is not None:
            self._due = now + AGAIN
            of = "" if self.total is None else f" of {self.total}"
            print(f"{self.what}: {self.done}{of} {self.unit}, {now - self._began:.0f} s", file=sys.stderr,
                  flush=True)  # fmt: skip

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.close()
