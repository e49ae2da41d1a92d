"""Options of the benchmarks that read labelled words one at a time."""

from __future__ import annotations

import argparse
from pathlib import Path

from clip4str.core.errors import UsageError
from clip4str.core.output_files import check_output


def add_word_options(parser: argparse.ArgumentParser) -> None:
    """Which words, on how many threads, and where the figures go."""
    add = parser.add_argument
    add("--data", type=Path, nargs="+", required=True, metavar="DIR", help="folders with LMDB sets at any depth")
    add("--sets", nargs="+", metavar="NAME", help="only these (default: the standard sets found, or all if none)")
    add("--threads", type=int, default=1, metavar="N", help="CPU threads (default: 1)")
    add("--limit", type=int, metavar="N", help="only the first N words of every set")
    add("--json", type=Path, metavar="FILE", help="write all figures as JSON")
    add("--quiet", action="store_true", help="no progress bars")


def check_word_options(args: argparse.Namespace) -> None:
    """Raises UsageError for what cannot be meant, or cannot be written."""
    for name, value in (("limit", args.limit), ("threads", args.threads)):
        if value is not None and value < 1:
            raise UsageError(f"--{name} is 1 or more, not {value}")
    check_output(args.json)
