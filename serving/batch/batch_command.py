"""clip4str batch: very many pictures and videos -> one Parquet file, resumable."""

from __future__ import annotations

import argparse
import importlib.util
import sys
import threading
import time
from collections.abc import Generator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from clip4str.core.console import Parser
from clip4str.core.cpu import available_threads
from clip4str.core.errors import BackendError, UsageError
from clip4str.core.output_files import check_output
from clip4str.core.progress import Progress
from clip4str.runtime.read_command import add_recognizer_options, announced_bundle, load_recognizer

from . import listing, local_engine
from .job import Job, begun
from .job_options import word_options
from .results import ChunkReader
from .videos import video_reader

CHUNK = 2048
MOST_CHUNK = 1 << 20
_EPILOG = """\
examples:
  clip4str batch crops/ --output words.parquet               a folder and all below it
  clip4str batch 'shards/*.tar' more.parquet lmdb/ clip.mp4 --output words.parquet
  clip4str batch s3://bucket/crops/ --output words.parquet   pip install s3fs
  clip4str batch crops/ --output words.parquet --engine ray  on all machines of a Ray cluster
Inputs are folders, patterns, pictures, tar files (WebDataset), Parquet files with a column of bytes, LMDB folders and
videos. Interrupted, also by kill -9: run the same command again. What cannot be read has its row, too, with an error.
"""


def build_parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="clip4str batch",
        description="Read the words of very many pictures and videos into one Parquet file: docs/batch.md.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add("inputs", nargs="+", metavar="INPUT", help="folder, pattern, picture, .tar, .parquet, LMDB folder, video, or "
        "an address such as s3://bucket/folder/")  # fmt: skip
    add("--output", type=Path, required=True, metavar="FILE.parquet", help="a row for each picture")
    add("--engine", choices=("local", "ray"), default="local", help="threads here, or a Ray cluster (default: local)")
    add("--workers", type=int, metavar="N", help="that read at once (default: one a core, or a GPU)")
    add("--chunk", type=int, default=CHUNK, metavar="N", help="pictures that are lost at most where a worker is killed "
        "(default: %(default)s)")  # fmt: skip
    add("--column", metavar="NAME", help="of Parquet files with several columns of bytes: the pictures'")
    add("--quiet", action="store_true", help="no progress and no summary on stderr")
    add_recognizer_options(parser)
    ray = parser.add_argument_group("ray")
    ray.add_argument("--address", metavar="HOST:PORT", help="of the cluster (default: $RAY_ADDRESS, else one of this "
                     "machine alone is started)")  # fmt: skip
    ray.add_argument("--gpus", type=float, default=0.0, metavar="G", help="that each worker takes, such as 1 or 0.25")
    return parser


def main(argv: Sequence[str] | None = None) -> int:
    args = build_parser().parse_args(argv)
    _check(args)
    folder = args.bundle or announced_bundle()
    args.bundle = str(folder)
    with begun(args.output, _what(args)) as job:
        if isinstance(job, int):
            _say(args, f"{args.output}: is done already, {job:,} rows")
            return 0
        if not job.before:
            listing.check_filled(args.inputs)
        if job.before:
            _say(args, f"{job.folder}: going on after {job.before:,} chunks")
        began = time.perf_counter()
        read = _run(args, job)
        rows, errors = job.finish(time.perf_counter() - began)
    seconds = time.perf_counter() - began
    _say(args, f"{args.output}: {rows:,} rows, {errors:,} with an error; {read:,} read in {seconds:.1f} s, "
         f"{read / seconds:,.1f} a second")  # fmt: skip
    return 0


def _run(args: argparse.Namespace, job: Job) -> int:
    """Rows that were read now."""
    read = 0
    with Progress(None, "reading", "rows", silent=args.quiet) as progress, closing(_results(args, job)) as results:
        for number, key, table in results:
            job.write(number, key, table)
            read += len(table)
            progress.update(len(table))
    return read


def _results(args: argparse.Namespace, job: Job) -> Generator[tuple[int, str, Any], None, None]:
    if args.engine == "ray":
        from . import ray_engine

        yield from ray_engine.run(args, job)
        return
    threads = args.threads
    args.threads = threads or 1
    recognizer = load_recognizer(args)
    if recognizer.backend.on_gpu:
        workers = args.workers or 1
    else:
        workers = args.workers or max(1, available_threads() // args.threads)
    stopped = threading.Event()
    reader = ChunkReader(recognizer, args.column, video_reader, stopped)
    yield from local_engine.run(job.left(listing.chunks(args.inputs, args.chunk)), reader, workers, stopped)


def _what(args: argparse.Namespace) -> dict[str, Any]:
    """By which a job is known: what its rows depend on, and where its chunks begin."""
    return {
        **word_options(args), "inputs": list(args.inputs), "chunk": args.chunk, "column": args.column
    }  # fmt: skip


def _check(args: argparse.Namespace) -> None:
    """Raises UsageError, BackendError."""
    if importlib.util.find_spec("pyarrow") is None:
        raise BackendError("batch jobs write Parquet: pip install 'clip4str[batch]'")
    if args.engine == "ray" and importlib.util.find_spec("ray") is None:
        raise BackendError("--engine ray needs Ray: pip install 'clip4str[ray]'")
    if not 1 <= args.chunk <= MOST_CHUNK:
        raise UsageError(f"--chunk is 1 to {MOST_CHUNK}, not {args.chunk}")
    if args.workers is not None and not 1 <= args.workers <= 4096:
        raise UsageError(f"--workers is 1 to 4096, not {args.workers}")
    if not 0 <= args.gpus <= 64:
        raise UsageError(f"--gpus is 0 to 64, not {args.gpus:g}")
    if args.output.suffix.lower() not in (".parquet", ".pq"):
        raise UsageError(f"{args.output}: its name must end in .parquet")
    if not args.output.exists():
        check_output(args.output)
    listing.check(args.inputs)


def _say(args: argparse.Namespace, line: str) -> None:
    if not args.quiet:
        print(line, file=sys.stderr)
