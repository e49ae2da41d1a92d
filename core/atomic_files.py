"""Files and folders that appear whole or not at all, and survive the machine's next moment."""

from __future__ import annotations

import ctypes
import os
import secrets
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

if sys.platform != "win32":
    import fcntl

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # Linux's


@contextmanager
def replaced(path: Path, durable: bool = True) -> Iterator[Path]:
    """Inside, write the file yielded; afterwards it is `path`, in one move. An exception leaves `path` as it was.

    Its permissions are those of any new file here, whoever writes it (safetensors' writer makes private ones). durable:
    also wait until the disk has it, so that even a power cut leaves the old file or the new one.
    """
    partial = path.with_name(f".{path.name[:100]}.tmp-{unique()}")
    try:
        partial.touch()  # the one way to ask for the umask that disturbs no other thread
        mode = partial.stat().st_mode & 0o777
        partial.unlink()
        yield partial
        partial.chmod(mode)
        if durable:
            flush(partial)
        os.replace(partial, path)
        if durable:
            flush(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def unique() -> str:
    """For a name that nobody else takes: threads share a process, and containers on one volume share its number."""
    return secrets.token_hex(8)


def exchange(first: Path, second: Path) -> bool:
    """Two files or folders that are there change places, in one move. False where the system cannot do that."""
    if not sys.platform.startswith("linux"):
        return False
    renameat2 = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    names = os.fsencode(first), os.fsencode(second)
    return renameat2 is not None and renameat2(_AT_FDCWD, names[0], _AT_FDCWD, names[1], _RENAME_EXCHANGE) == 0


def lock(folder: Path, wait: bool = True) -> int | None:
    """A folder's lock, until unlock, or until this process ends however it does. None where somebody has it and nobody
    is to `wait`, or where the system or the file system has no such locks."""
    if sys.platform == "win32":
        return None
    descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def unlock(descriptor: int | None) -> None:
    if descriptor is not None:
        with suppress(OSError):
            os.close(descriptor)


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Alone with a folder among those who ask, where there are locks."""
    descriptor = lock(folder)
    try:
        yield
    finally:
        unlock(descriptor)


def flush(path: Path) -> None:
    """Wait until the disk has a file, or a folder's list of names."""
    if os.name != "posix":
        return
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
