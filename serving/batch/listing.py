"""Inputs as the user names them -> chunks, one after the other: nothing holds a list of them all.

The order is the inputs', and in folders the names', so that a second run comes to the same chunks. Held at a time are
the names of one chunk, and of the folders that are being gone through: some 0.1 GB for a million names in one folder.
"""

from __future__ import annotations

import glob
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from clip4str.core.errors import BackendError, Clip4StrError, DataError, SourceError, UsageError
from clip4str.data.word_lmdb import LmdbWords
from clip4str.runtime import IMAGE_SUFFIXES

from . import parquet_tables, tar_shards
from .chunks import FILES, LMDB, PARQUET, TAR, TO_THE_END, VIDEO, Chunk, digest, file_of
from .stores import Named, children, is_remote, look_up, matches, opened, without_query

VIDEOS = {
    ".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".m2ts", ".mts", ".flv", ".wmv", ".3gp"
}  # fmt: skip
_TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz")
_PARQUETS = (".parquet", ".pq")
LEAST_SAMPLE = 24  # bytes of an LMDB file for a sample: its key and what points there


class Entry(NamedTuple):
    kind: str
    path: str
    stamp: str


def check(inputs: Sequence[str]) -> None:
    """Raises UsageError where one names nothing."""
    for each in inputs:
        if not each:
            raise UsageError("an empty input names nothing; for this folder: .")
        if each == "-":
            raise UsageError("a job cannot be gone on with from standard input; name files, folders or patterns")
        if not (is_pattern(each) and (is_remote(each) or _globbed(each))):
            look_up(each)


def check_filled(inputs: Iterable[str]) -> None:
    """Raises UsageError where there is nothing to read in one, SourceError where its store does not answer."""
    for each in inputs:
        if next(chunks([each], 1), None) is None:
            raise UsageError(f"{each}: nothing to read was found there")


def chunks(inputs: Iterable[str], size: int) -> Iterator[Chunk]:
    """Of `size` pictures, or more where a row group or a compressed shard has more. Raises UsageError, SourceError."""
    number, names, stamps = 0, [], []
    for kind, path, stamp in entries(inputs):
        if kind == FILES:
            names.append(path)
            stamps.append(stamp)
            if len(names) == size:
                yield Chunk(number, FILES, names=tuple(names), stamp=digest(stamps))
                number, names, stamps = number + 1, [], []
            continue
        for first, count in _parts(kind, path, size):
            yield Chunk(number, kind, path, first, count, stamp=stamp)
            number += 1
    if names:
        yield Chunk(number, FILES, names=tuple(names), stamp=digest(stamps))


def entries(inputs: Iterable[str]) -> Iterator[Entry]:
    for each in inputs:
        if is_pattern(each):
            found = matches(each) if is_remote(each) else sorted(_globbed(each))
            if not found:
                raise UsageError(f"{each}: matches nothing")
            folders: set[PurePosixPath] = set()
            for path in found:
                place = PurePosixPath(path)
                if not folders.isdisjoint(place.parents):
                    continue  # with its folder already, as ** matches both
                match = _matched(path)
                if match.folder:
                    folders.add(place)
                yield from _entry(match, named=False)
        else:
            yield from _entry(look_up(each), named=True)


def _matched(path: str) -> Named:
    """A link to nowhere, or what is gone since, has its row, too, as it has in a folder."""
    try:
        return look_up(path)
    except UsageError:
        return Named(path, path.rpartition("/")[2], False, "")


def _stamp(found: Named) -> str:
    """Of a file that is looked up again once it is read: some stores tell less, or otherwise, of it in a folder."""
    return _matched(found.path).stamp if is_remote(found.path) else found.stamp


def is_pattern(path: str) -> bool:
    """A query of an address is none."""
    return glob.has_magic(without_query(path)) and (is_remote(path) or not Path(path).exists())


def _entry(found: Named, named: bool) -> Iterator[Entry]:
    """named: by the user, so that a file of no known kind is taken for a picture; in folders such are left out."""
    if found.folder:
        below = list(children(found.path)) if is_remote(found.path) else children(found.path)
        data = _lmdb(found.path)
        if data is not None:
            yield Entry(LMDB, found.path, data.stamp)
            return
        for each in below:
            yield from _entry(each, named=False)
        return
    name = found.name.lower()
    suffix = Path(name).suffix
    if name.endswith(_TARS):
        yield Entry(TAR, found.path, _stamp(found))
    elif name.endswith(_PARQUETS):
        yield Entry(PARQUET, found.path, _stamp(found))
    elif suffix in VIDEOS:
        yield Entry(VIDEO, found.path, found.stamp)
    elif named or suffix in IMAGE_SUFFIXES:
        yield Entry(FILES, found.path, found.stamp)


def _lmdb(folder: str) -> Named | None:
    """Its file, where the folder is a data set."""
    path = file_of(LMDB, folder)
    if is_remote(folder):
        try:
            look_up(path)
        except UsageError:
            return None
        raise UsageError(f"{folder}: an LMDB is read on this machine alone; copy it here first")
    return look_up(path) if Path(path).is_file() else None


def _parts(kind: str, path: str, size: int) -> Iterator[tuple[int, int]]:
    """Of what is damaged one: who reads it says so in the results."""
    try:
        if kind == LMDB:
            with LmdbWords(path) as words:
                most = Path(file_of(kind, path)).stat().st_size // LEAST_SAMPLE
                if len(words) > most:
                    raise DataError(f"says that it has {len(words):,} samples")
                yield from ((first, min(size, len(words) + 1 - first)) for first in range(1, len(words) + 1, size))
        elif kind == PARQUET:
            with opened(path) as file:
                yield from parquet_tables.parts(file, size)
        elif kind == TAR and path.lower().endswith(".tar") and not is_remote(path):
            with opened(path) as file:
                yield from tar_shards.parts(file, size)
        else:
            yield 0, TO_THE_END
    except (SourceError, BackendError):
        raise  # not the file's fault, and it will not be the same chunk the next time
    except (Clip4StrError, OSError):
        yield 0, TO_THE_END


def _globbed(pattern: str) -> list[str]:
    return glob.glob(pattern, recursive=True)  # noqa: PTH207  (keeps the pattern's own spelling)
