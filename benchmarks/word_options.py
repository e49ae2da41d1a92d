"""Shared by benchmarks that read labelled words one at a time: options, and the end of a run."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from clip4str.core.console import Parser
from clip4str.core.errors import UsageError
from clip4str.core.machine_info import busy
from clip4str.core.output_files import check_output, write_json


def word_parser(program: str, description: str | None, epilog: str, data: bool = True) -> Parser:
    """Options for words, threads and output. data: is --data required?"""
    parser = Parser(
        prog=program, description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, nargs="+", required=data, metavar="DIR", help="folders with LMDB sets at any depth")
    add("--sets", nargs="+", metavar="NAME", help="only these (default: the standard sets found, or all if none)")
    add("--threads", type=int, default=1, metavar="N", help="CPU threads (default: 1)")
    add("--limit", type=int, metavar="N", help="only the first N words of every set")
    add("--json", type=Path, metavar="FILE", help="write all figures as JSON")
    add("--quiet", action="store_true", help="no progress bars")
    return parser


def check_word_options(args: argparse.Namespace) -> None:
    """Raises UsageError for values out of range, or an output that cannot be written."""
    for name, value in (("limit", args.limit), ("threads", args.threads)):
        if value is not None and value < 1:
            raise UsageError(f"--{name} is 1 or more, not {value}")
    check_output(args.json)


def finish(args: argparse.Namespace, info: dict[str, Any], figures: dict[str, Any]) -> None:
    """Say so if the machine was busy; write the figures and the machine's with --json."""
    if busy(info):
        print(f"taken while other work ran (load {info['load_before']}): times are too long, and ratios rough")
    if args.json:
        write_json(args.json, {**figures, "machine": info, "limit": args.limit})
