"""Where inputs lie: files of this machine, or an object store that fsspec knows (s3://, gs://, https://, ...)."""

from __future__ import annotations

import io
import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar, cast

from clip4str.core.errors import BackendError, Clip4StrError, ImageError, SourceError, UsageError, first_line
from clip4str.data.lmdb_file import LARGEST_VALUE

T = TypeVar("T")

MOST_BYTES = LARGEST_VALUE  # of an encoded picture, wherever it lies
WAITS = (1.0, 2.0, 4.0, 8.0)  # seconds before a store that does not answer is asked again
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?:::|://)")
_ANSWERS = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError)
_STAMPS = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "updated", "created")


def too_large() -> str:
    """Said of an encoded picture of more than MOST_BYTES."""
    return f"more than {MOST_BYTES:,} bytes, which no crop of a word has"


class StoreError(SourceError):
    """A store does not answer: the fault of no input, so it ends the job, which can be gone on with."""


class Named(NamedTuple):
    """path: as it is opened; name: its last part; stamp: size and time, "" of a folder."""

    path: str
    name: str
    folder: bool
    stamp: str


def is_remote(path: str) -> bool:
    return _SCHEME.match(path) is not None and not Path(path).exists()


def without_query(path: str) -> str:
    """Of an address of the web what is before its "?"; other paths as they are."""
    return path.partition("?")[0] if path.lower().startswith(("http://", "https://")) else path


def look_up(path: str) -> Named:
    """What is there. Raises UsageError where nothing is, SourceError where the store does not answer."""
    if not is_remote(path):
        try:
            return _local(path, Path(path).name)
        except (OSError, ValueError) as error:
            raise UsageError(f"{path}: {_reason(error)}") from None
    fs, inner = _store(path)
    try:
        return _remote(fs, _asked(path, lambda: fs.info(inner)))
    except OSError as error:
        raise UsageError(f"{path}: {_reason(error)}") from None


def children(folder: str) -> Iterator[Named]:
    """What lies in a folder, sorted, hidden names left out. Of a folder of this machine the names alone are held, of a
    store what it tells of each. Raises UsageError, SourceError."""
    if is_remote(folder):
        fs, inner = _store(folder)
        try:
            listed = _asked(folder, lambda: fs.ls(inner, detail=True))
        except OSError as error:
            raise UsageError(f"{folder}: {_reason(error)}") from None
        found = sorted(listed, key=lambda each: each["name"])
        named = (_remote(fs, each) for each in found if each["name"].strip("/") != inner.strip("/"))
        yield from (each for each in named if each.name and not each.name.startswith("."))
        return
    try:
        with os.scandir(folder) as entries:
            names = sorted(entry.name for entry in entries if not entry.name.startswith("."))
    except OSError as error:
        raise UsageError(f"{folder}: cannot be read ({_reason(error)})") from None
    for name in names:
        path = os.path.join(folder, name)  # noqa: PTH118  (a Path would drop what the user typed, and takes its time)
        try:
            found_here = _local(path, name)
        except OSError:  # a link to nowhere, or gone since
            yield Named(path, name, False, "")
            continue
        if not (found_here.folder and os.path.islink(path)):  # noqa: PTH114
            yield found_here


def matches(pattern: str) -> list[str]:
    """Paths of a pattern in a store, sorted."""
    fs, inner = _store(pattern)
    return sorted(fs.unstrip_protocol(path) for path in _asked(pattern, lambda: fs.glob(inner)))


@contextmanager
def opened(path: str) -> Iterator[BinaryIO]:
    """To be read, with seeking. Raises OSError, StoreError: so does reading."""
    if is_remote(path):
        fs, inner = _store(path)
        with _Steady(path, lambda: fs.open(inner, "rb")) as file:
            yield cast(BinaryIO, file)
        return
    if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116  (a pipe would be waited for, for ever)
        raise OSError(0, "is no regular file")
    with Path(path).open("rb") as file:
        yield file


def fetched(path: str) -> bytes:
    """A picture out of a store, whole. Raises ImageError for what is not there or too large, SourceError where the
    store does not answer: the job stops there, and goes on later."""
    fs, inner = _store(path)
    try:
        most = MOST_BYTES + 1
        content = _asked(path, lambda: fs.cat_file(inner, end=most) if _ranges(fs) else _streamed(fs, inner, most))
    except OSError as error:
        raise ImageError(_reason(error)) from None
    if len(content) > MOST_BYTES:
        raise ImageError(too_large())
    return content


@contextmanager
def on_this_machine(path: str) -> Iterator[str]:
    """For what opens files by name: a path here, a copy where it lies elsewhere. Raises OSError, SourceError."""
    if not is_remote(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="clip4str-") as folder, opened(path) as source:
        copy = Path(folder) / f"copy{Path(path).suffix[:16]}"  # a name may be longer than a file's can be
        with copy.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
        yield str(copy)


def _streamed(fs: Any, inner: str, most: int) -> bytes:
    """So many bytes at most over HTTP, whose servers need not know ranges nor a size: one request, and the connection
    is closed when that is enough."""
    content = bytearray()
    with fs.open(inner, "rb", block_size=0, size=1) as file:  # 0: as a stream; with a size, none is asked for before
        while len(content) < most and (part := file.read(min(most - len(content), 1 << 20))):
            content += part
    return bytes(content)


class _Steady(io.RawIOBase):
    """A store's file that is opened anew, and read on from where it was, where the store stops answering."""

    def __init__(self, path: str, reopen: Callable[[], Any]) -> None:
        super().__init__()
        self._path, self._reopen, self._at = path, reopen, 0
        self._file: Any = _asked(path, reopen)
        self._size: int | None = getattr(self._file, "size", None)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            if self._size is None:
                raise OSError(0, "the store does not tell its size, so only what is read forwards can be read there")
            offset += self._size
        elif whence == io.SEEK_CUR:
            offset += self._at
        if offset < 0:
            raise OSError(0, "a place before its beginning")
        self._at = offset
        return offset

    def read(self, size: int | None = -1) -> bytes:
        content = _asked(self._path, lambda: self._read(-1 if size is None else size), gone=True)
        self._at += len(content)
        return content

    def readinto(self, buffer: Any) -> int:
        content = self.read(len(buffer))
        buffer[: len(content)] = content
        return len(content)

    def close(self) -> None:
        self._drop()
        super().close()

    def _read(self, size: int) -> bytes:
        try:
            if self._file is None:
                self._file = self._reopen()
                if getattr(self._file, "size", None) != self._size:
                    raise StoreError(f"{self._path}: changed while it was read; run the same command again")
            if self._size is None:  # a stream, which only goes forwards
                if self._at < self._file.tell():
                    self._drop()
                    self._file = self._reopen()
                while (left := self._at - self._file.tell()) and self._file.read(min(left, 1 << 20)):
                    pass
            elif self._file.tell() != self._at:
                self._file.seek(self._at)
            content: bytes = self._file.read(size)
        except BaseException:
            self._drop()
            raise
        if self._size is not None:
            there = max(0, self._size - self._at)
            if len(content) < (there if size < 0 else min(size, there)):
                self._drop()
                raise OSError("less came than was asked for")
        return content

    def _drop(self) -> None:
        file, self._file = self._file, None
        with suppress(Exception):  # it may be what failed
            if file is not None:
                file.close()


def _ranges(fs: Any) -> bool:
    return "http" not in (fs.protocol if isinstance(fs.protocol, str) else "".join(fs.protocol))


def _store(path: str) -> tuple[Any, str]:
    """Raises BackendError where a library is missing, UsageError for an address that fsspec does not know."""
    try:
        import fsspec
    except ImportError:
        raise BackendError(f"{path}: needs fsspec: pip install 'clip4str[batch]'") from None
    try:
        fs, inner = fsspec.core.url_to_fs(path, use_listings_cache=False)
    except ImportError as error:
        raise BackendError(f"{path}: {first_line(error)}") from None
    except (ValueError, TypeError) as error:
        raise UsageError(f"{path}: {first_line(error)}") from None
    return fs, inner


def _asked(path: str, ask: Callable[[], T], gone: bool = False) -> T:
    """Its answer. What is not there, or forbidden, is an OSError; anything else is asked for again, and so is that
    where it was `gone` after it had been there. Raises StoreError."""
    for wait in (*WAITS, None):
        try:
            return ask()
        except Clip4StrError:
            raise
        except Exception as error:  # each store's client has errors of its own
            if not gone and isinstance(error, _ANSWERS):
                raise
            if wait is None:
                raise StoreError(f"{path}: cannot be reached ({first_line(error)}); run the same command later "
                                  "to go on") from None  # fmt: skip
            time.sleep(wait)
    raise AssertionError


def _local(path: str, name: str) -> Named:
    found = os.stat(path)  # noqa: PTH116
    folder = stat.S_ISDIR(found.st_mode)
    return Named(path, name, folder, "" if folder else f"{found.st_size} {found.st_mtime_ns}")


def _remote(fs: Any, info: dict[str, Any]) -> Named:
    name, folder = info["name"].rstrip("/"), info.get("type") == "directory"
    told = next((str(info[key]) for key in _STAMPS if info.get(key) is not None), "")
    return Named(
        fs.unstrip_protocol(name), without_query(name).rpartition("/")[2], folder, f"{info.get('size')} {told}"
    )


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file or folder"
    return str(getattr(error, "strerror", None) or first_line(error))
