"""Where inputs lie: files of this machine, or an object store that fsspec knows (s3://, gs://, https://, ...)."""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar

from clip4str.core.errors import BackendError, ImageError, SourceError, UsageError, first_line

T = TypeVar("T")

MOST_BYTES = 1 << 26  # of an encoded picture, as in data/lmdb_file.py
WAITS = (1.0, 2.0, 4.0, 8.0)  # seconds before a store that does not answer is asked again
_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*(?:::|://)")
_STAMPS = ("ETag", "etag", "md5Hash", "mtime", "LastModified", "last_modified", "updated", "created")


class Named(NamedTuple):
    """path: as it is opened; name: its last part; stamp: size and time, "" of a folder."""

    path: str
    name: str
    folder: bool
    stamp: str


def is_remote(path: str) -> bool:
    return _SCHEME.match(path) is not None and not Path(path).exists()


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
    """To be read, with seeking. Raises OSError, SourceError."""
    if is_remote(path):
        fs, inner = _store(path)
        with _asked(path, lambda: fs.open(inner, "rb")) as file:
            yield file
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
        raise ImageError(f"more than {MOST_BYTES:,} bytes, which no crop of a word has")
    return content


@contextmanager
def on_this_machine(path: str) -> Iterator[str]:
    """For what opens files by name: a path here, a copy where it lies elsewhere. Raises OSError, SourceError."""
    if not is_remote(path):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="clip4str-") as folder, opened(path) as source:
        copy = Path(folder) / Path(path).name
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


def _asked(path: str, ask: Callable[[], T]) -> T:
    """Its answer. What is not there, or forbidden, is an OSError; anything else is asked for again."""
    for wait in (*WAITS, None):
        try:
            return ask()
        except (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError):
            raise
        except Exception as error:  # each store's client has errors of its own
            if wait is None:
                raise SourceError(f"{path}: cannot be reached ({first_line(error)}); run the same command later "
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
    return Named(fs.unstrip_protocol(name), name.rpartition("/")[2], folder, f"{info.get('size')} {told}")


def _reason(error: Exception) -> str:
    if isinstance(error, FileNotFoundError):
        return "no such file or folder"
    return str(getattr(error, "strerror", None) or first_line(error))
