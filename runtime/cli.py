"""The console command `clip4str`. Commands that need torch are loaded only when they are called."""

from __future__ import annotations

import argparse
import importlib
import io
import sys
import warnings
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from .errors import Clip4StrError, UsageError

COMMANDS = {  # name: (module, what it does)
    "read": ("clip4str.runtime.read_command", "read the words in images"),
    "info": ("clip4str.runtime.info_command", "show what a bundle or checkpoint is"),
    "build": ("clip4str.export.build_engine", "turn a checkpoint into a bundle"),
    "eval": ("clip4str.benchmarks.accuracy", "word accuracy over labelled LMDB folders"),
    "bench": ("clip4str.benchmarks.latency", "latency, side by side with the published way of decoding"),
    "train": ("clip4str.training.train", "train or continue training a network"),
}
_EXTRAS = {"build": "export", "eval": "bench", "bench": "bench", "train": "train"}
_EPILOG = """\
a first session:
  clip4str build                     build the bundled network into bundles/
  clip4str read photo.jpg crops/     read words with the bundle built last
  clip4str build my.ckpt --fp16      your own CLIP4STR checkpoint, half precision
  clip4str info bundles/my-fp16      what it is, and how it compared with the original
every command explains itself: clip4str COMMAND --help
"""


class Parser(argparse.ArgumentParser):
    """Options are spelled out, and a wrong one is a one-line UsageError."""

    def __init__(self, **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (try --help)")


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command; returns the exit code (0, or 2 after a one-line error on stderr)."""
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
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)
    for name, (_, what) in COMMANDS.items():
        commands.add_parser(name, help=what, add_help=False)
    if not argv:
        parser.print_help()
        return 2
    try:
        chosen = parser.parse_args(argv[:1]).command
    except UsageError as error:
        return fail("", error)
    try:
        module = importlib.import_module(COMMANDS[chosen][0])
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing == "clip4str" or chosen not in _EXTRAS:
            raise
        return fail(chosen, f"it needs {missing}; pip install 'clip4str[{_EXTRAS[chosen]}]'")
    try:
        return module.main(argv[1:])
    except Clip4StrError as error:
        return fail(chosen, error)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return 130
    except BrokenPipeError:
        sys.stderr.close()
        return 0
    except OSError as error:
        return fail(chosen, f"{error.filename or 'output'}: {error.strerror or error}")
    except MemoryError:
        return fail(chosen, "not enough memory")


def fail(command: str, error: object) -> int:
    """Print the one-line error of a command; returns its exit code, 2."""
    print(f"{f'clip4str {command}'.strip()}: error: {one_line(error)}", file=sys.stderr)
    return 2


def run_script(program: str, main: Callable[[Sequence[str] | None], int], argv: Sequence[str] | None = None) -> int:
    """The exit code of a script's main: its own, or 2 and one line for what it raises on purpose."""
    try:
        return main(argv)
    except Clip4StrError as error:
        print(f"{program}: error: {one_line(error)}", file=sys.stderr)
        return 2


def _one_line_warning(message: Warning | str, *_: object, **__: object) -> str:
    return f"clip4str: warning: {one_line(message)}\n"


def one_line(text: object) -> str:
    """Control characters (line breaks, terminal escapes out of a stranger's file) escaped."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in str(text))


def _version() -> str:
    from clip4str import __version__

    return f"clip4str {__version__}"


if __name__ == "__main__":
    sys.exit(main())
