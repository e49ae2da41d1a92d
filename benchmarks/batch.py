"""A batch job (clip4str batch) beside the recogniser itself on the same crops, with one worker and with more."""

from __future__ import annotations

import argparse
import importlib.util
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from clip4str.benchmarks.bundle_options import bundle_parser
from clip4str.benchmarks.figures import between, markdown
from clip4str.core.console import run_script
from clip4str.core.errors import BackendError, UsageError
from clip4str.core.machine_info import describe, machine_info
from clip4str.core.output_files import check_output, write_json
from clip4str.runtime import Recognizer
from clip4str.runtime.default_bundle import default_bundle
from clip4str.serving.batch import listing, local_engine
from clip4str.serving.batch.batch_command import build_parser
from clip4str.serving.batch.job import begun
from clip4str.serving.batch.job_options import word_options
from clip4str.serving.batch.results import ChunkReader
from clip4str.serving.batch.videos import video_reader

PROGRAM = "benchmarks/batch.py"
CROPS = Path(__file__).resolve().parents[1] / "export" / "sample_crops"
_EPILOG = """\
examples:
  python benchmarks/batch.py --workers 2
  PYTHONPATH=build/serving/site python benchmarks/batch.py --ray 2 --json batch.json

Sides read the same files in turn, A B A B: the recogniser in this process, one
thread; a job with one thread, and with --workers. A job's time is all of it,
from listing to the output in its place; loading the network is in no side's.
Processor time is of all threads, and changes less with other work.
With --ray also Ray with one worker and with so many: words a second from the
first chunk that came back to the last, as Ray itself takes seconds to start.
"""


def main(argv: Sequence[str] | None = None) -> int:
    args = _parser().parse_args(argv)
    if min(args.copies, args.repeat, args.workers, args.chunk) < 1 or args.ray < 0:
        raise UsageError("--copies, --repeat, --workers and --chunk are 1 or more")
    for module in ("pyarrow", *(["ray"] if args.ray else [])):
        if importlib.util.find_spec(module) is None:
            raise BackendError(f"it needs {module}: pip install 'clip4str[{'ray' if module == 'ray' else 'batch'}]'")
    check_output(args.json)
    bundle, info = args.bundle or default_bundle(), machine_info(1)
    with tempfile.TemporaryDirectory(prefix="clip4str-batch-") as scratch:
        folder = _crops(Path(scratch), args.copies)
        files = sorted(map(str, folder.iterdir()))
        with Recognizer.load(bundle, "onnxruntime", threads=1) as recognizer:
            sides: dict[str, Callable[[], int]] = {
                "the recogniser, 1 thread": lambda: len(recognizer.read(files)),
                "a job, 1 worker": lambda: _job(recognizer, folder, args.chunk, 1),
            }
            if args.workers > 1:
                sides[f"a job, {args.workers} workers"] = lambda: _job(recognizer, folder, args.chunk, args.workers)
            rows = _turns(sides, args.repeat)
            name, used = f"{recognizer.manifest.name} {recognizer.manifest.precision}", _memory(args.names)
        if args.ray:
            ones, many = [], []
            for _ in range(args.ray_repeat):
                ones.append(_ray(bundle, folder, args.chunk, 1, args.ray))
                many.append(_ray(bundle, folder, args.chunk, args.ray, args.ray))
            rows += [_row("Ray, 1 worker", ones, ones), _row(f"Ray, {args.ray} workers", many, ones)]
    print(f"{name}, {len(files)} crops, chunks of {args.chunk}\n{describe(info)}")
    print(f"listing {args.names:,} names of one folder: {used:.0f} bytes a name")
    heads = ("side", "words a second", "times the first", "quartiles", "processor ms a word")
    print(markdown(heads, [
        [row["side"], f"{row['words_a_second']:.1f}", f"{row['ratio']:.3f}", between(row, 3),
         f"{row['processor_ms_a_word']:.2f}" if "processor_ms_a_word" in row else "-"] for row in rows
    ]))  # fmt: skip
    if args.json:
        write_json(args.json, {"rows": rows, "bundle": name, "crops": len(files), "chunk": args.chunk, "machine": info,
                               "listing": {"names": args.names, "bytes_a_name": used}})  # fmt: skip
    return 0


def _job(recognizer: Recognizer, folder: Path, chunk: int, workers: int) -> int:
    """Rows of a whole job."""
    with tempfile.TemporaryDirectory() as scratch, begun(Path(scratch) / "words.parquet", {}) as job:
        assert not isinstance(job, int)
        stopped = threading.Event()
        reader = ChunkReader(recognizer, None, video_reader, stopped)
        for done in local_engine.run(job.left(listing.chunks([str(folder)], chunk)), reader, workers, stopped):
            job.write(*done)
        return job.finish(0.0)[0]


def _ray(bundle: Path, folder: Path, chunk: int, workers: int, cores: int) -> float:
    """Words a second of Ray's workers while all of them read."""
    import ray

    from clip4str.serving.batch import ray_engine

    ray.init(num_cpus=cores, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    try:
        with tempfile.TemporaryDirectory() as scratch:
            given = {"output": f"{scratch}/words.parquet", "bundle": bundle, "chunk": chunk, "workers": workers}
            options = [str(part) for name, value in given.items() for part in (f"--{name}", value)]
            args = build_parser().parse_args([str(folder), "--engine", "ray", *options])
            came = []
            with begun(args.output, word_options(args)) as job:
                assert not isinstance(job, int)
                for _, _, table in ray_engine.run(args, job):
                    came.append((time.perf_counter(), len(table)))
    finally:
        ray.shutdown()
    first = came[workers:]  # each one's first chunk is read while it warms up
    if not first:
        raise UsageError(f"{len(came)} chunks are too few for {workers} workers: more --copies, or a smaller --chunk")
    return sum(rows for _, rows in first) / (first[-1][0] - came[workers - 1][0])


def _turns(sides: dict[str, Callable[[], int]], repeat: int) -> list[dict[str, Any]]:
    """A row for each side; the first is what others are compared with. One turn of each warms up."""
    speeds: dict[str, list[float]] = {name: [] for name in sides}
    milliseconds: dict[str, list[float]] = {name: [] for name in sides}
    for repetition in range(repeat + 1):
        for name, side in sides.items():
            began, used = time.perf_counter(), time.process_time()
            words = side()
            if repetition:
                speeds[name].append(words / (time.perf_counter() - began))
                milliseconds[name].append(1000 * (time.process_time() - used) / words)
    first = next(iter(speeds.values()))
    return [
        {**_row(name, values, first), "processor_ms_a_word": float(np.median(milliseconds[name]))}
        for name, values in speeds.items()
    ]


def _row(side: str, speeds: Sequence[float], first: Sequence[float]) -> dict[str, Any]:
    low, middle, high = np.percentile(np.array(speeds) / np.array(first), (25, 50, 75)).tolist()
    return {"side": side, "words_a_second": float(np.median(speeds)), "ratio": middle, "quartile_1": low,
            "quartile_3": high}  # fmt: skip


def _memory(names: int) -> float:
    """Bytes that the listing holds at most for each name of one large folder."""
    import tracemalloc

    with tempfile.TemporaryDirectory() as folder:
        for number in range(names):
            (Path(folder) / f"crop-{number:012d}.jpg").touch()
        tracemalloc.start()
        for _ in listing.chunks([folder], 2048):
            pass
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    return peak / names


def _crops(scratch: Path, copies: int) -> Path:
    folder = scratch / "crops"
    folder.mkdir()
    for crop in CROPS.glob("*.jpg"):
        content = crop.read_bytes()
        for copy in range(copies):
            (folder / f"{copy:05d}-{crop.name}").write_bytes(content)
    return folder


def _parser() -> argparse.ArgumentParser:
    parser = bundle_parser(PROGRAM, __doc__, _EPILOG)
    add = parser.add_argument
    add("--copies", type=int, default=16, metavar="N", help="of the 32 sample crops (default: 16)")
    add("--chunk", type=int, default=64, metavar="N", help="pictures a chunk (default: 64)")
    add("--workers", type=int, default=2, metavar="N", help="threads of the second job (default: 2)")
    add("--repeat", type=int, default=5, metavar="N", help="turns (default: 5)")
    add("--ray", type=int, default=0, metavar="N", help="also Ray, one worker and N on N cores (default: not)")
    add("--ray-repeat", type=int, default=3, metavar="N", help="turns of Ray (default: 3)")
    add("--names", type=int, default=100_000, metavar="N", help="of the folder whose listing is measured")
    return parser


if __name__ == "__main__":
    sys.exit(run_script(PROGRAM, main))
