"""A file's content that nobody changes between the check and the use, without a second copy of it in this process."""

from __future__ import annotations

import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

_BLOCK = 1 << 20


@contextmanager
def sealed(file: BinaryIO, digest: Any) -> Iterator[tuple[bytes | mmap.mmap, str | bytes]]:
    """(content, source) of a file, read once; digest is given all of it. source: for a library that takes a path or
    bytes. A path where there is one, since libraries read files piece by piece, and copy bytes whole: Linux has files
    that lie in memory alone and can be sealed. Otherwise the content itself."""
    if (descriptor := _memory_file()) is None:
        whole = file.read()
        digest.update(whole)
        yield whole, whole
        return
    try:
        size = 0
        while block := file.read(_BLOCK):
            digest.update(block)
            size += len(block)
            while block:
                block = block[os.write(descriptor, block) :]
        if not size:
            yield b"", b""
            return
        _seal(descriptor)
        with mmap.mmap(descriptor, size, flags=mmap.MAP_PRIVATE, prot=mmap.PROT_READ) as content:
            yield content, f"/proc/self/fd/{descriptor}"
    finally:
        os.close(descriptor)


def _memory_file() -> int | None:
    """A descriptor, None where the system has no such files, or no path for them."""
    descriptor = None
    with suppress(AttributeError, OSError):
        descriptor = os.memfd_create("stage", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    if descriptor is not None and not Path(f"/proc/self/fd/{descriptor}").exists():
        os.close(descriptor)
        return None
    return descriptor


def _seal(descriptor: int) -> None:
    import fcntl  # only where there are such files

    seals = fcntl.F_SEAL_WRITE | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_SEAL
    fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, seals)
