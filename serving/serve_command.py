"""`clip4str serve SERVER`: one sub-command for each server, whose module is loaded when it is chosen."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

from clip4str.core.console import Parser


def _triton(argv: Sequence[str]) -> int:
    from clip4str.serving.triton.triton_command import main

    return main(argv)


def _ray(argv: Sequence[str]) -> int:
    from clip4str.serving.ray.ray_command import main

    return main(argv)


# name -> summary, main(argv of the sub-command) -> exit code
SERVERS: dict[str, tuple[str, Callable[[Sequence[str]], int]]] = {
    "triton": ("write a model repository for NVIDIA's Triton Inference Server", _triton),
    "ray": ("serve words over HTTP, on one machine or a Ray cluster", _ray),
}


def main(argv: Sequence[str] | None = None) -> int:
    argv = list(sys.argv[1:] if argv is None else argv)
    parser = Parser(prog="clip4str serve", description="Serve words to other machines: docs/serving.md.",
                    formatter_class=argparse.RawDescriptionHelpFormatter)  # fmt: skip
    names = parser.add_subparsers(dest="server", metavar="SERVER", required=True)
    for name, (summary, _) in SERVERS.items():
        names.add_parser(name, help=summary, add_help=False)
    if not argv:
        parser.print_help()
        return 2
    chosen = parser.parse_args(argv[:1]).server
    return SERVERS[chosen][1](argv[1:])
