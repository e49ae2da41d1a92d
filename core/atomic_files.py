"""Files that appear whole or not at all, and survive the machine's next moment."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def replaced(path: Path, durable: bool = True) -> Iterator[Path]:
    """Inside, write the file yielded; afterwards it is `path`, in one move. An exception leaves `path` as it was.

    Its permissions are those of any new file here, whoever writes it (safetensors' writer makes private ones). durable:
    also wait until the disk has it, so that even a power cut leaves the old file or the new one.
    """
    partial = path.with_name(f".{path.name}.tmp-{os.getpid()}")
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


def flush(path: Path) -> None:
    """Wait until the disk has a file, or a folder's list of names."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
