"""A chunk -> the rows that it has in the output."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, NamedTuple

from clip4str.core.errors import Clip4StrError, DataError, ImageError, SourceError, UsageError, first_line, one_line
from clip4str.data.word_lmdb import LmdbWords
from clip4str.runtime import Recognizer, Word

from ..nameless import Nameless, without_name
from . import parquet_tables, tar_shards
from .chunks import LMDB, PARQUET, TAR, TO_THE_END, VIDEO, Chunk, file_of
from .stores import StoreError, fetched, is_remote, look_up, on_this_machine, opened

if TYPE_CHECKING:
    from clip4str.video import VideoReader

FETCHES = 16  # pictures of a store that are asked for at once
COLUMNS: dict[str, str] = {  # of the output: name, pyarrow's type
    "path": "string", "member": "string", "text": "string", "confidence": "double", "char_confidences": "list",
    "hint": "string", "error": "string", "track": "int32", "start": "double", "end": "double", "time": "double",
    "quad": "list", "reads": "int32", "frames": "int32",
}  # fmt: skip


class Stopped(Exception):
    """The job is being ended, and this chunk is not read to its end."""


class Picture(NamedTuple):
    """member: within a file that holds many. source: what a Recognizer reads, or why there is nothing to read."""

    path: str
    member: str | None
    source: Any


class ChunkReader:
    """Safe to share between threads, as its recogniser is. column: of Parquet files. videos: makes a VideoReader, one
    for each video. stopped: ends what is being read, with Stopped."""

    def __init__(
        self, recognizer: Recognizer, column: str | None, videos: Callable[[Recognizer], VideoReader],
        stopped: threading.Event | None = None,
    ) -> None:  # fmt: skip
        self.recognizer, self.column, self._videos = recognizer, column, videos
        self._stopped = stopped or threading.Event()

    def read(self, chunk: Chunk) -> Any:
        """A pyarrow.Table of COLUMNS: a row for each picture, for each word of a video; for what cannot be read its
        error. Raises Stopped, SourceError where a store does not answer, BackendError."""
        import pyarrow as pa

        rows = self._video(chunk.place) if chunk.kind == VIDEO else self._pictures(chunk)
        found: dict[str, list[Any]] = {name: [] for name in COLUMNS}
        for row in rows:
            if self._stopped.is_set():
                raise Stopped
            for name, values in found.items():
                values.append(row.get(name))
        if _changed(chunk):  # what was listed is not what was read: rows may be of neither file, or twice, or missing
            row = {"path": printable(chunk.place), "error": "changed since it was listed; begin a new job"}
            found = {name: [row.get(name)] for name in COLUMNS}
        return pa.table(found, schema())

    def _pictures(self, chunk: Chunk) -> Iterator[dict[str, Any]]:
        """A container that breaks off gives what came before, and a row without a member that says so."""
        waiting: deque[list[Picture]] = deque()
        faults: list[str] = []

        def batches() -> Iterator[list[Any]]:
            batch: list[Picture] = []
            for picture in _until_broken(self._named(chunk), faults):
                batch.append(picture)
                if len(batch) == self.recognizer.batch_size:
                    waiting.append(batch)
                    yield [each.source for each in batch]
                    batch = []
            if batch:
                waiting.append(batch)
                yield [each.source for each in batch]

        for words in self.recognizer.read_batches(batches()):
            for picture, word in zip(waiting.popleft(), words, strict=True):
                yield _row(picture, word)
        yield from ({"path": printable(chunk.place), "error": fault} for fault in faults)

    def _named(self, chunk: Chunk) -> Iterator[Picture]:
        """Raises what opening and reading a container does."""
        if chunk.kind == TAR:
            with opened(chunk.place) as file:
                for count, member in enumerate(tar_shards.members(file, chunk.first)):
                    if count == chunk.count:
                        return
                    yield _held(chunk.place, member.name, member.content or b"")
        elif chunk.kind == PARQUET:
            with opened(chunk.place) as file:
                for row, content in parquet_tables.pictures(file, chunk.first, chunk.count, self.column):
                    yield _held(chunk.place, str(row), content)
        elif chunk.kind == LMDB:
            yield from _samples(chunk)
        else:
            yield from _files(chunk.names)

    def _video(self, path: str) -> Iterator[dict[str, Any]]:
        """Without words: one row without text."""
        from clip4str.video import WordEnded

        shown, told, error, file = printable(path), 0, None, path
        try:
            with on_this_machine(path) as file:
                for event in self._videos(self.recognizer).run(file):
                    if self._stopped.is_set():
                        raise Stopped
                    if isinstance(event, WordEnded):
                        told += 1
                        yield {
                            "path": shown, "text": event.text, "confidence": event.confidence, "track": event.track,
                            "start": event.start, "end": event.end, "time": event.time, "reads": event.reads,
                            "quad": event.quad.astype(float).ravel().round(2).tolist(), "frames": event.frames,
                        }  # fmt: skip
        except StoreError:
            raise
        except SourceError as failed:
            error = without_name(without_name(failed, file), path).replace(one_line(file), one_line(path))
        except (OSError, ImageError) as failed:
            error = first_line(failed).replace(one_line(file), one_line(path))
        if error is not None or not told:
            yield {"path": shown, "error": error}


def _changed(chunk: Chunk) -> bool:
    """Whether the file that holds many pictures is another one. Raises StoreError."""
    if chunk.kind not in (TAR, PARQUET, LMDB):
        return False
    try:
        return look_up(file_of(chunk.kind, chunk.place)).stamp != chunk.stamp
    except UsageError:  # it is gone
        return True


def schema() -> Any:
    import pyarrow as pa

    kinds = {"string": pa.string(), "double": pa.float64(), "int32": pa.int32(), "list": pa.list_(pa.float64())}
    return pa.schema([(name, kinds[kind]) for name, kind in COLUMNS.items()])


def printable(path: str) -> str:
    """A file's name may hold bytes that are no UTF-8, which Parquet's strings cannot."""
    return path.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")


class _Missing:
    """In the place of a picture that there is none of."""

    name = ""

    def __init__(self, reason: str) -> None:
        self._reason = reason

    def read(self, *_: int) -> bytes:
        raise ImageError(self._reason)


def _held(path: str, member: str | None, content: bytes | str) -> Picture:
    return Picture(path, member, _Missing(content) if isinstance(content, str) else Nameless(content))


def _row(picture: Picture, word: Word | Clip4StrError) -> dict[str, Any]:
    named = {"path": printable(picture.path), "member": None if picture.member is None else printable(picture.member)}
    if isinstance(word, Word):
        chars = list(word.char_confidences)
        return {**named, "text": word.text, "confidence": word.confidence, "char_confidences": chars,
                "hint": word.hint or None}  # fmt: skip
    return {**named, "error": without_name(word, picture.path)}


def _until_broken(pictures: Iterable[Picture], faults: list[str]) -> Iterator[Picture]:
    try:
        yield from pictures
    except (DataError, OSError) as error:
        faults.append(first_line(error))


def _samples(chunk: Chunk) -> Iterator[Picture]:
    with LmdbWords(chunk.place) as words:
        last = len(words) if chunk.count == TO_THE_END else chunk.first + chunk.count - 1
        if chunk.count == TO_THE_END:
            raise DataError(f"says that it has {last:,} samples, which it has no room for")
        for number in range(chunk.first, last + 1):
            try:
                content: bytes | str = words.image(number)
            except DataError as error:
                content = without_name(error, chunk.place)
            yield _held(chunk.place, f"image-{number:09d}", content)


def _files(names: Iterable[str]) -> Iterator[Picture]:
    """Those of a store are fetched ahead, several at once."""
    pending: deque[tuple[str, Future[bytes | str] | None]] = deque()
    with ThreadPoolExecutor(FETCHES, "fetch") as pool:  # starts no thread before it is asked to
        for name in names:
            pending.append((name, pool.submit(_fetched, name) if is_remote(name) else None))
            while pending and (pending[0][1] is None or len(pending) == 2 * FETCHES):
                yield _file(*pending.popleft())
        while pending:
            yield _file(*pending.popleft())


def _file(name: str, content: Future[bytes | str] | None) -> Picture:
    return Picture(name, None, name) if content is None else _held(name, None, content.result())


def _fetched(name: str) -> bytes | str:
    try:
        return fetched(name)
    except ImageError as error:
        return str(error)
