"""Chunks read by all machines of a Ray cluster, with Ray Data.

The listing is a stream: one task on the driver's machine lists chunks while earlier ones are read, and waits when Ray
Data has enough of them. A pool of actors, each with a network of its own, reads them. What a dead machine had is given
to another by Ray; the driver alone writes the job's folder, a chunk once. Inputs and the bundle must be where every
machine finds them under the same name.
"""

from __future__ import annotations

import argparse
import logging
import platform
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import ray
import ray.data
from ray.data.block import BlockMetadata
from ray.data.datasource import Datasource, ReadTask

from clip4str.core.errors import BackendError, Clip4StrError, SourceError, first_line
from clip4str.runtime.read_command import load_recognizer

from ..ray_cluster import connect
from . import listing
from .chunks import Chunk
from .job import Job, remaining
from .job_options import word_options
from .results import ChunkReader
from .videos import video_reader

_FAILED = "failed"  # column: one line where a worker or the listing cannot go on, which ends the job


class _Chunks(Datasource):
    """Those that are left, one a block, listed by a single task while they are asked for."""

    def __init__(self, inputs: Sequence[str], size: int, done: dict[int, str], folder: str) -> None:
        super().__init__()
        self._inputs, self._size, self._done, self._folder = inputs, size, done, folder

    @property
    def supports_distributed_reads(self) -> bool:
        return False  # inputs are listed on the driver's machine

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        return [ReadTask(self._blocks, BlockMetadata(None, None, None, None))]

    def _blocks(self) -> Iterator[Any]:
        try:
            for chunk in remaining(listing.chunks(self._inputs, self._size), self._done, self._folder):
                yield pa.table({"chunk": [chunk.to_json()], _FAILED: [""]})
        except Clip4StrError as error:
            yield pa.table({"chunk": [""], _FAILED: [str(error)]})


def run(args: argparse.Namespace, job: Job) -> Iterator[tuple[int, str, Any]]:
    """(number, key, table) of each chunk as it is done. Raises SourceError where a worker or the listing cannot go on,
    BackendError where Ray cannot."""
    ours = not ray.is_initialized()
    if ours:
        connect(args.address, include_dashboard=False)
    context = ray.data.DataContext.get_current().copy()
    context.enable_progress_bars = context.print_on_execution_start = False
    context.target_min_block_size, context.target_max_block_size = 0, 1  # a block is a chunk, not what fills 128 MB
    options = {name: value for name, value in vars(args).items() if name not in ("inputs", "output")}
    workers = args.workers or _workers(args)
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    with context.current(context):
        chunks = _Chunks(args.inputs, args.chunk, dict(job.done), str(job.folder))
        results = ray.data.read_datasource(chunks, override_num_blocks=1, num_cpus=0).map_batches(
            _Worker, batch_size=1, batch_format="pyarrow", fn_constructor_args=(options, job.about),
            compute=ray.data.ActorPoolStrategy(size=workers), num_cpus=args.threads or 1, num_gpus=args.gpus or None,
        )  # fmt: skip
    try:
        for batch in results.iter_batches(batch_size=1, batch_format="pyarrow", prefetch_batches=0):
            (row,) = batch.to_pylist()
            if row[_FAILED]:
                raise SourceError(row[_FAILED])
            with pa.ipc.open_stream(row["table"]) as stream:
                yield row["number"], row["key"], stream.read_all()
    except ray.exceptions.RayError as error:
        raise BackendError(f"Ray: {first_line(error)}; run the same command again to go on") from None
    finally:
        if ours:
            ray.shutdown()


def _workers(args: argparse.Namespace) -> int:
    """As many as the cluster has room for now."""
    there = ray.cluster_resources()
    if args.gpus:
        return max(1, int(there.get("GPU", 0) / args.gpus))
    return max(1, int(there.get("CPU", 1) / (args.threads or 1)))


class _Worker:
    """One network, in an actor."""

    def __init__(self, options: dict[str, Any], about: dict[str, Any]) -> None:
        self._failed = ""
        args = argparse.Namespace(**options)
        args.threads = args.threads or 1
        try:
            recognizer = load_recognizer(args)
            for name, here in word_options(args).items():
                if here != about[name]:
                    raise BackendError(f"{platform.node()}: has {name} {here}, not {about[name]} ({args.bundle})")
            self._reader = ChunkReader(recognizer, args.column, video_reader)
        except Clip4StrError as error:  # raised here, Ray would start actors without end
            self._failed = str(error)

    def __call__(self, batch: Any) -> Any:
        return _block([self._read(row) for row in batch.to_pylist()])

    def _read(self, row: dict[str, Any]) -> dict[str, Any]:
        if row[_FAILED] or self._failed:
            return {"number": -1, "key": "", "table": b"", _FAILED: row[_FAILED] or self._failed}
        chunk = Chunk.from_json(row["chunk"])
        try:
            table = self._reader.read(chunk)
        except Clip4StrError as error:
            return {"number": -1, "key": "", "table": b"", _FAILED: str(error)}
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, table.schema) as stream:
            stream.write_table(table)
        return {"number": chunk.number, "key": chunk.key, "table": sink.getvalue().to_pybytes(), _FAILED: ""}


def _block(rows: list[dict[str, Any]]) -> Any:
    kinds = {"number": pa.int64(), "key": pa.string(), "table": pa.large_binary(), _FAILED: pa.string()}
    return pa.table({name: pa.array([row[name] for row in rows], kind) for name, kind in kinds.items()})
