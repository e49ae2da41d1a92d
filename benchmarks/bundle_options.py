"""Shared by benchmarks of one bundle: the options that all of them have."""

from __future__ import annotations

import argparse
from pathlib import Path

from clip4str.core.console import Parser


def bundle_parser(program: str, description: str | None, epilog: str, words: bool = False) -> Parser:
    """With --bundle and --json, and where `words` are read --words, see data.word_images."""
    parser = Parser(
        prog=program, description=description, epilog=epilog, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--bundle", type=Path, metavar="DIR", help="bundle to read with (default: the newest)")
    if words:
        add("--words", type=Path, metavar="DIR", help="word crops, or an LMDB set of them (default: the bundled crops)")
    add("--json", type=Path, metavar="FILE", help="write all figures as JSON")
    return parser
