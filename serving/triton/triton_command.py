"""`clip4str serve triton BUNDLE --output repo/`."""

from __future__ import annotations

from collections.abc import Sequence

from clip4str.core.errors import UsageError


def main(argv: Sequence[str]) -> int:
    raise UsageError("not there yet")
