"""Tar files (WebDataset's shards), read forwards, member by member.

tarfile's own loop takes a damaged header in the middle for the end, in silence; here it is an error. What a hostile
header makes it hold is bounded.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import tarfile
from collections.abc import Iterator
from pathlib import PurePosixPath
from typing import Any, BinaryIO, NamedTuple

from clip4str.core.errors import Clip4StrError, DataError, first_line
from clip4str.runtime import IMAGE_SUFFIXES

from .chunks import TO_THE_END
from .stores import MOST_BYTES, too_large

LONGEST_NAME = 1 << 16  # bytes of a header that holds a long name, and what else there is
_LONG = (tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_BUFFER = 1 << 20


class Member(NamedTuple):
    """A picture. start: the byte where its header begins. content: None where it was not asked for; too large, or cut
    off: why."""

    name: str
    start: int
    content: bytes | str | None


class _Bounded(tarfile.TarInfo):
    def _proc_member(self, archive: Any) -> Any:
        if self.size < 0 or (self.type in _LONG and self.size > LONGEST_NAME):
            raise DataError(f"a header that says {self.size:,} bytes")
        found = super()._proc_member(archive)  # type: ignore[misc]
        if self.type == tarfile.XGLTYPE:  # for all that follow: kept, and copied for each of them
            held = sum(len(name) + len(value) for name, value in archive.pax_headers.items())
            if held > LONGEST_NAME:
                raise DataError(f"global headers of {held:,} characters")
        return found

    def _refuse(self, *_: Any) -> Any:
        """Maps of holes are as long as the file says, and no picture has any."""
        raise DataError("a sparse file, which is not read")

    _proc_sparse = _proc_gnusparse_00 = _proc_gnusparse_01 = _proc_gnusparse_10 = _refuse


def members(file: BinaryIO, first: int = 0, content: bool = True) -> Iterator[Member]:
    """Pictures from the header at byte `first` on. Hidden ones are left out, and whatever is no regular file. content:
    read them, too; else the file is not compressed, and `first` is 0. Raises DataError where it is damaged or cut
    off, StoreError."""
    file.seek(first)
    try:
        stream, mode = (_unpacked(file), "r|") if content and not first else (file, "r|" if content else "r:")
        with tarfile.open(fileobj=stream, mode=mode, tarinfo=_Bounded, bufsize=_BUFFER) as archive:  # type: ignore[call-overload]
            begun, found = 0, archive.firstmember
            while found is not None:
                if found.size < 0 or archive.offset <= begun:  # else a walk without end (CVE-2025-8194)
                    raise DataError("a header that leads back to what was read")
                if found.isreg() and _is_picture(found.name):
                    yield Member(found.name, first + found.offset, _read(archive, found) if content else None)
                begun, found = archive.offset, _next(archive)
    except Clip4StrError:  # also a store's that does not answer: no fault of the file
        raise
    except Exception as error:  # tarfile's, zlib's, the store's
        raise DataError(f"no readable tar file: {first_line(error)}") from None


def parts(file: BinaryIO, size: int) -> Iterator[tuple[int, int]]:
    """(first, count) of chunks of `size` pictures, by a walk over the headers of a file that is not compressed; the
    last one's count is TO_THE_END. Of what is damaged the part after the damage is in the last one."""
    first, count = 0, 0
    try:
        for member in members(file, content=False):
            if count == size:
                yield first, count
                first, count = member.start, 0
            count += 1
    except DataError:
        pass  # whoever reads it says so
    yield first, TO_THE_END


def _unpacked(file: BinaryIO) -> Any:
    """What is in a file, compressed or not. tarfile itself unpacks a whole buffer at once, a thousand times as much."""
    head = file.read(6)
    file.seek(0)
    if head.startswith(b"\x1f\x8b"):
        return gzip.GzipFile(fileobj=file)
    if head.startswith(b"BZh"):
        return bz2.BZ2File(file)
    return lzma.LZMAFile(file) if head.startswith((b"\xfd7zXZ", b"]\0\0\x80")) else file


def _next(archive: Any) -> Any:
    archive.fileobj.seek(archive.offset)
    try:
        return _Bounded.fromtarfile(archive)
    except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
        return None
    except tarfile.EmptyHeaderError:  # type: ignore[attr-defined]
        raise DataError("ends without the mark that tar files end with: cut off?") from None


def _read(archive: Any, member: tarfile.TarInfo) -> bytes | str:
    if member.size > MOST_BYTES:
        return too_large()
    archive.fileobj.seek(member.offset_data)
    content = archive.fileobj.read(member.size)
    if len(content) != member.size:
        raise DataError(f"{member.name} is cut off")
    return content


def _is_picture(name: str) -> bool:
    path = PurePosixPath(name)
    return path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
