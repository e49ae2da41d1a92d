"""What commands share: options, errors of one line, exit codes."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from .errors import Clip4StrError, UsageError, one_line
from .interrupts import Interrupts, heeding_signals


class Parser(argparse.ArgumentParser):
    """Options are spelled out, and a wrong one is a one-line UsageError."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (try --help)")


def fail(command: str, error: object) -> int:
    """Print the one-line error of a command; returns its exit code, 2."""
    print(f"{f'clip4str {command}'.strip()}: error: {one_line(error)}", file=sys.stderr)
    return 2


def said(code: int) -> int:
    """The code once everything that was printed is out. Raises BrokenPipeError."""
    if sys.stdout is not None and not getattr(sys.stdout, "closed", False):
        sys.stdout.flush()
    return code


def end_quietly() -> int:
    """The exit code, 0, where nobody reads what is printed any more: `| head`. What is left of it goes nowhere, also
    when the process ends."""
    with contextlib.suppress(OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, sys.stdout.fileno())
        os.close(nowhere)
    return 0


def run_script(program: str, main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None) -> int:
    """The exit code of a script's main: its own, 2 and one line for what it raises on purpose, 130 or 143 after a
    signal."""

    def run(_: Interrupts) -> int:
        try:
            return said(main(argv))
        except Clip4StrError as error:
            print(f"{program}: error: {one_line(error)}", file=sys.stderr)
            return 2
        except BrokenPipeError:
            return end_quietly()

    return heeding_signals(run)


def image_size(text: str) -> tuple[int, int]:
    """The value of --image-size: (height, width). Raises UsageError."""
    height, _, width = text.lower().partition("x")
    sizes = [int(part) for part in (height, width) if part.isascii() and part.isdecimal() and len(part) < 6]
    if len(sizes) != 2 or not all(sizes):
        raise UsageError(f"--image-size is HxW, such as 32x128, not {text!r}")
    return sizes[0], sizes[1]
