#!/usr/bin/env python3
"""The long training run of the bundled network: start or continue it, look at it, pause it, stop it, carry it away.

Examples:
  python training/network_run.py run                      start or continue, in the background; safe to give twice
  python training/network_run.py run --commit HEAD        move it to the project's commit first; only when stopped
  python training/network_run.py status                   exits 0 if running, 1 if not
  python training/network_run.py pause                    for a measurement; then resume
  python training/network_run.py stop                     saves and ends
  python training/network_run.py export --output small.safetensors
  python training/network_run.py export --output state --pieces    and on another machine: import state

`make network-run`, `network-status`, `network-pause`, `network-resume` and `network-stop` are the same. The run lives
in a folder `network` beside the project ($CLIP4STR_NETWORK names another): a checkout of its own at a fixed commit,
data/ (fonts, atlas, pool), run/ (state, averaged weights, log.csv, chart), network.log. Real words come from
../shared/data/train/real ($CLIP4STR_WORDS), photos from ../shared/data/photos/IC15_train ($CLIP4STR_PHOTOS). What is
trained, and how, stands in training/network.args. Linux.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clip4str.core.console import Parser, run_script
from clip4str.core.errors import UsageError
from clip4str.training.network.places import places


def parser() -> Parser:
    p = Parser(
        prog="network_run", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )  # fmt: skip
    commands = p.add_subparsers(dest="command", metavar="COMMAND", required=True)
    run = commands.add_parser("run", help="start or continue it, in the background")
    run.add_argument(
        "--commit", metavar="REV", help="of the project, to move the run to (default: it stays where it is)"
    )
    nice: dict[str, Any] = {"type": int, "default": 19, "choices": range(20), "metavar": "N"}
    run.add_argument("--nice", **nice, help="0 to 19 (default 19: what other work leaves; 0: an equal share)")
    status = commands.add_parser("status", help="what it is doing; exits 0 if it is running, 1 if not")
    status.add_argument("--no-chart", action="store_true", help="do not draw the chart anew: quicker")
    commands.add_parser("pause", help="stop signals to all its processes")
    commands.add_parser("resume", help="go on after pause")
    stop = commands.add_parser("stop", help="save and end")
    stop.add_argument("--wait", type=float, default=180.0, metavar="SECONDS", help="then it is killed (default 180)")
    export = commands.add_parser("export", help="averaged weights, or the whole state in pieces")
    export.add_argument("--output", type=Path, required=True, metavar="PATH", help="file, or folder with --pieces")
    export.add_argument("--pieces", action="store_true", help="the whole state as files of at most 16 MiB")
    export.add_argument("--branch", type=Path, metavar="DIR", help="weights of a branch of the run: train.py --branch")
    bring = commands.add_parser("import", help="go on from what export --pieces wrote on another machine")
    bring.add_argument("folder", type=Path, metavar="DIR")
    keep = commands.add_parser("keep")  # what `run` starts in the background
    keep.add_argument("--lock", type=int, required=True, help=argparse.SUPPRESS)
    keep.add_argument("--nice", **nice, help=argparse.SUPPRESS)
    commands.add_parser("attempt")  # what keep starts
    return p


def main(argv: Sequence[str] | None = None) -> int:
    args = parser().parse_args(argv)
    if sys.platform != "linux":
        raise UsageError("the run needs Linux (/proc, flock); training/train.py itself runs elsewhere, too")
    try:
        return command(args)
    except OSError as error:
        raise UsageError(f"{error.filename or 'output'}: {error.strerror or error}") from None


def command(args: argparse.Namespace) -> int:
    # Here, for what they import is not there on other systems.
    from clip4str.training.network import carry, checkout, control, keeper, processes
    from clip4str.training.network.status import status

    where = places(Path(__file__).resolve().parents[1])
    if args.command == "run":
        return control.run(where, args.commit, args.nice)
    if args.command == "status":
        return status(where, draw=not args.no_chart)
    if args.command == "pause":
        return control.pause(where)
    if args.command == "resume":
        return control.resume(where)
    if args.command == "stop":
        return control.stop(where, args.wait)
    if args.command == "keep":
        # As `run` does; whoever killed that one just now has the run found all the same.
        processes.write_keeper(where, os.getpid(), checkout.commit_of(where.checkout).sha)
        return keeper.Keeper(where, args.lock, args.nice).run()
    if args.command == "attempt":
        keeper.attempt(where)
    elif args.command == "import":
        print(f"{carry.import_pieces(where, args.folder)}; make network-run goes on from it")
    elif args.pieces and args.branch:
        raise UsageError("--pieces carry the run itself away: leave out --branch, or --pieces")
    elif args.pieces:
        print(f"{args.output}: {carry.export_pieces(where, args.output)} pieces")
    else:
        print(f"{args.output}: {carry.export_weights(where, args.output, args.branch):,} words seen")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_script("network_run", main))
