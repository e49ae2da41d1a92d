"""The console command `clip4str`. Rooms with commands list them in a commands.py; what a command needs is loaded only
when it is called."""

from __future__ import annotations

import sys

try:
    import argparse
    import importlib
    import io
    import warnings
    from collections.abc import Sequence
    from pathlib import Path
    from typing import NamedTuple

    import clip4str

    from .console import Parser, end_quietly, fail, said
    from .errors import Clip4StrError, UsageError, one_line
    from .interrupts import Interrupts, heeding_signals
except KeyboardInterrupt:  # main catches it from its first line on
    sys.exit(130)


class Command(NamedTuple):
    """One of a room's commands. module has a main(argv) -> exit code; extra: what to install for it, if anything;
    writes: files, so that it is given the time to clean up when it is interrupted."""

    module: str
    summary: str
    extra: str = ""
    writes: bool = True


def commands() -> dict[str, Command]:
    """By name, of all rooms in their order."""
    folder, found = Path(clip4str.__file__).parent, {}
    for room in clip4str.ROOMS:
        if (folder / room / "commands.py").is_file():  # a look-up by import would load the whole room
            for name, entry in importlib.import_module(f"clip4str.{room}.commands").COMMANDS.items():
                found[name] = Command(*entry)
    return found


_EPILOG = """\
a first session:
  clip4str read photo.jpg crops/     read words, with the bundle built last or the packaged one
  clip4str build my.ckpt --fp16      your own CLIP4STR checkpoint, half precision
  clip4str info bundles/my-fp16      what it is, and how it compared with the original
every command explains itself: clip4str COMMAND --help
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code: 0, 2 after a one-line error on stderr, 130 or 143 after a signal."""
    return heeding_signals(lambda interrupts: _run(argv, interrupts))


def _run(argv: Sequence[str] | None, interrupts: Interrupts) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    warnings.formatwarning = _one_line_warning
    for stream in (sys.stdout, sys.stderr):  # a file name may hold bytes that no encoding has
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    parser = Parser(
        prog="clip4str",
        description="Scene text recognition with CLIP4STR checkpoints: cropped word images in, words out.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"clip4str {clip4str.__version__}")
    known = commands()
    names = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, command in known.items():
        names.add_parser(name, help=command.summary, add_help=False)
    if not argv:
        parser.print_help()
        return 2
    try:
        chosen = parser.parse_args(argv[:1]).command
    except UsageError as error:
        return fail("", error)
    try:
        if not known[chosen].writes:
            interrupts.end_soon()
        return said(importlib.import_module(known[chosen].module).main(argv[1:]))
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing == "clip4str" or not known[chosen].extra:
            raise
        return fail(chosen, f"it needs {missing}; pip install 'clip4str[{known[chosen].extra}]'")
    except Clip4StrError as error:
        return fail(chosen, error)
    except BrokenPipeError:
        return end_quietly()
    except OSError as error:
        return fail(chosen, f"{error.filename or 'output'}: {error.strerror or error}")
    except MemoryError:
        return fail(chosen, "not enough memory")


def _one_line_warning(message: Warning | str, *_: object, **__: object) -> str:
    return f"clip4str: warning: {one_line(message)}\n"


if __name__ == "__main__":
    sys.exit(main())
