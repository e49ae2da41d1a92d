"""A job's folder beside its output: what it is, and a file of results for each chunk that is done.

OUTPUT.job/ has job.json and part-NUMBER-KEY-ID.parquet files, each of which appears whole or not at all: their names
are the list of what is done. ID is job.json's, so that no part is ever taken for another job's. At the end they become
OUTPUT, in one move, and the folder goes, job.json last. So a process that is killed at any moment leaves every chunk
done once, or not at all.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from clip4str.core.atomic_files import flush, lock, replaced, unique, unlock
from clip4str.core.errors import UsageError, first_line

from .chunks import Chunk
from .results import schema

FOLDER = ".job"  # after the output's name
ABOUT = "job.json"
METADATA = b"clip4str"  # key of the output's metadata; its value is JSON
ROW_GROUP = 1 << 17  # rows
_PART = re.compile(r"part-(\d{8})-([0-9a-f]{16})-([0-9a-f]{16})\.parquet")
WHOLE = "whole.parquet"  # the output, until it is in its place
_PASSING = re.compile(  # what one that was killed may leave
    r"whole\.parquet|\.(job\.json|whole\.parquet|part-[0-9a-f-]+\.parquet)\.tmp-[0-9a-f]{16}|lock-[0-9a-f]{16}"
)
_ID = re.compile(r"[0-9a-f]{16}")


class Job:
    """One that runs here: nobody else does the same. Made by `begun`."""

    def __init__(self, output: Path, folder: Path, about: dict[str, Any]) -> None:
        self.output, self.folder, self.about = output, folder, about
        self.done: dict[int, str] = {}
        for path in folder.iterdir():
            if match := _PART.fullmatch(path.name):
                if match[3] != about["id"]:
                    raise UsageError(f"{path}: is a part of another job; name another --output, or delete {folder}")
                self.done[int(match[1])] = match[2]
        self.before = len(self.done)

    def left(self, chunks: Iterator[Chunk]) -> Iterator[Chunk]:
        """Those that are not done yet. Raises UsageError where the inputs are not what they were."""
        return remaining(chunks, dict(self.done), str(self.folder))

    def write(self, number: int, key: str, table: Any) -> None:
        """A chunk is done. A second time is the first."""
        import pyarrow.parquet as pq

        if number in self.done:
            return
        with replaced(self._part(number, key)) as partial:
            pq.write_table(table, partial, compression="zstd")
        self.done[number] = key

    def _part(self, number: int, key: str) -> Path:
        return self.folder / f"part-{number:08d}-{key}-{self.about['id']}.parquet"

    def finish(self, seconds: float) -> tuple[int, int]:
        """OUTPUT out of all parts; rows, and how many have an error. Raises UsageError where a part is damaged, or is
        missing."""
        import pyarrow.parquet as pq

        if not self.done:
            raise UsageError("nothing to read was found in what was named")
        if len(self.done) != max(self.done) + 1:
            number = next(number for number in range(max(self.done)) if number not in self.done)
            raise UsageError(f"{self.folder}: chunk {number} was not read; run the same command again")
        about = {**self.about, "seconds": round(seconds, 1)}
        named = schema().with_metadata({METADATA: json.dumps(about).encode()})
        rows = errors = 0
        whole = self.folder / WHOLE  # not beside the output, where one that is killed would leave it
        with replaced(whole) as partial, pq.ParquetWriter(partial, named, compression="zstd") as writer:
            for table in _grouped(self._tables()):
                rows, errors = rows + len(table), errors + len(table) - table["error"].null_count
                writer.write_table(table.cast(named), row_group_size=ROW_GROUP)
            writer.add_key_value_metadata({"rows": str(rows), "errors": str(errors)})
        os.replace(whole, self.output)
        flush(self.output.parent)
        _clear(self.folder, self.about["id"])
        return rows, errors

    def _tables(self) -> Iterator[Any]:
        import pyarrow as pa
        import pyarrow.parquet as pq

        for number in sorted(self.done):
            path = self._part(number, self.done[number])
            try:
                yield pq.read_table(path)
            except (pa.ArrowException, OSError) as error:
                raise UsageError(
                    f"{path}: is damaged ({first_line(error)}); delete it, and run the command again"
                ) from None


def remaining(chunks: Iterator[Chunk], done: dict[int, str], folder: str) -> Iterator[Chunk]:
    """See Job.left. done: key by number."""
    most = -1
    for chunk in chunks:
        most = chunk.number
        key = done.get(chunk.number)
        if key is None:
            yield chunk
        elif key != chunk.key:
            raise UsageError(
                f"{folder}: the inputs changed since this job began, at {chunk.called} or before; delete that folder "
                "to begin anew"
            )
    if any(number > most for number in done):
        raise UsageError(f"{folder}: there are fewer inputs than when this job began; delete that folder to begin anew")


@contextmanager
def begun(output: Path, what: dict[str, Any]) -> Iterator[Job | int]:
    """A new job, or the one that was interrupted; the number of rows where it is done already. what: the values that
    tell one job from another. Raises UsageError for an output that is another job's, or in use."""
    folder = output.with_name(output.name + FOLDER)
    if output.exists():
        yield _already(output, folder, what)
        return
    try:
        folder.mkdir(exist_ok=True)
    except OSError as error:
        raise UsageError(f"{folder}: {error.strerror or error}") from None
    held = lock(folder, wait=False)
    if held is None and _locks_work(folder):
        raise UsageError(f"{folder}: another process is at this job")
    job = None
    try:
        about = folder / ABOUT
        if about.exists():
            _same(_read(about), what, folder)
        else:
            if strange := next((each.name for each in folder.iterdir() if not _PASSING.fullmatch(each.name)), None):
                raise UsageError(f"{folder}: has {strange}, but no {ABOUT}: no job's folder; name another --output, or "
                                 "move it away")  # fmt: skip
            with replaced(about) as partial:
                partial.write_text(json.dumps({**what, "id": unique()}, indent=1), encoding="utf-8")
        job = Job(output, folder, _read(about))
        yield job
    except BaseException:
        if job is not None and not job.done:
            _clear(folder, job.about["id"])  # nothing to go on with
        with suppress(OSError):
            folder.rmdir()
        raise
    finally:
        unlock(held)


def _clear(folder: Path, job: str) -> None:
    """What is this job's own goes, what says whose the rest is last. Others' files stay, and then the folder does."""
    with suppress(OSError):
        for path in list(folder.iterdir()):
            part = _PART.fullmatch(path.name)
            if path.name.startswith("lock-") and _PASSING.fullmatch(path.name):
                path.rmdir()
            elif _PASSING.fullmatch(path.name) or (part and part[3] == job):
                path.unlink()
        flush(folder)
        (folder / ABOUT).unlink()
        folder.rmdir()


def _already(output: Path, folder: Path, what: dict[str, Any]) -> int:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(output)
        about = json.loads((file.metadata.metadata or {})[METADATA])
    except (pa.ArrowException, OSError, KeyError, ValueError):
        raise UsageError(f"{output}: exists, and is no result of a batch job; name another file") from None
    _same(about, what, output)
    if (folder / ABOUT).is_file():
        if _read(folder / ABOUT)["id"] == about.get("id"):  # it was killed between its last two steps
            _clear(folder, about["id"])
    else:
        with suppress(OSError):
            folder.rmdir()  # likewise, at the very last; stays where it is not empty
    return int(file.metadata.num_rows)


def _same(there: dict[str, Any], what: dict[str, Any], place: Path) -> None:
    for name, value in what.items():
        if there.get(name) != value:
            raise UsageError(
                f"{place}: was made with {name} {_short(there.get(name))}, this is {_short(value)}; go on with that, "
                "name another --output, or delete it"
            )


def _short(value: Any) -> str:
    text = " ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def _read(about: Path) -> dict[str, Any]:
    try:
        values = json.loads(about.read_text(encoding="utf-8"))
        if not (isinstance(values, dict) and _ID.fullmatch(str(values.get("id")))):
            raise ValueError
    except (OSError, ValueError):
        raise UsageError(f"{about}: is damaged; name another --output, or delete its folder to begin anew") from None
    return values


def _locks_work(folder: Path) -> bool:
    """Is there locking on this file system at all?"""
    trial = folder / f"lock-{unique()}"
    trial.mkdir()
    try:
        held = lock(trial, wait=False)
        unlock(held)
        return held is not None
    finally:
        trial.rmdir()


def _grouped(tables: Iterator[Any]) -> Iterator[Any]:
    """Tables of about ROW_GROUP rows."""
    import pyarrow as pa

    held: list[Any] = []
    rows = 0
    for table in tables:
        held.append(table)
        rows += len(table)
        if rows >= ROW_GROUP:
            yield pa.concat_tables(held)
            held, rows = [], 0
    if held:
        yield pa.concat_tables(held)
