"""Hostile LMDB data sets: cut, lying about their pages, and going round in circles."""

from __future__ import annotations

import os
import struct
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

import lmdb
from corpus import ANSWERED, EITHER, REFUSED, hostile

KIND = "lmdbs"
PAGE = 4096
META = 16  # where what an LMDB says of itself begins in its two first pages
FLAGS, DEPTH, ENTRIES, ROOT, LAST, TRANSACTION = 76, 78, 104, 112, 120, 128  # in it, of the main table


@cache
def data_set(words: int = 300, samples: bytes | None = None, image: int = 500) -> bytes:
    """data.mdb: three leaves and more under a branch, the first image on pages of its own."""
    with tempfile.TemporaryDirectory() as folder:
        environment = lmdb.open(folder, map_size=1 << 26)
        with environment.begin(write=True) as transaction:
            transaction.put(b"num-samples", str(words).encode() if samples is None else samples)
            for number in range(1, words + 1):
                transaction.put(b"image-%09d" % number, b"\x89PNG" + bytes(9000 if number == 1 else image))
                transaction.put(b"label-%09d" % number, b"word %d" % number)
        environment.close()
        return Path(folder, "data.mdb").read_bytes()


def sets(ends: str, files: dict[str, Callable[[], bytes]], says: str = "") -> None:
    for name, data in files.items():

        def make(folder: Path, data: Callable[[], bytes] = data) -> None:
            folder.mkdir()
            (folder / "data.mdb").write_bytes(data())

        hostile(KIND, ends, says, name)(make)


def meta(offset: int, value: int, form: str = "<Q") -> Callable[[], bytes]:
    """The same field of both meta pages."""

    def change() -> bytes:
        data = bytearray(data_set())
        for page in (0, 1):
            struct.pack_into(form, data, page * PAGE + META + offset, value)
        return bytes(data)

    return change


def current() -> tuple[int, int]:
    """Pages: the root, and the file's."""
    data = data_set()
    newest = max((0, 1), key=lambda page: struct.unpack_from("<Q", data, page * PAGE + META + TRANSACTION))
    return struct.unpack_from("<Q", data, newest * PAGE + META + ROOT)[0], len(data) // PAGE


def root_changed(change: Callable[[bytearray, int], None]) -> Callable[[], bytes]:
    def make() -> bytes:
        data = bytearray(data_set())
        change(data, current()[0] * PAGE)
        return bytes(data)

    return make


def _to_itself(data: bytearray, root: int) -> None:
    """All children of the root are the root."""
    below = struct.unpack_from("<H", data, root + 12)[0]
    for pointer in struct.unpack_from(f"<{(below - 16) // 2}H", data, root + 16):
        struct.pack_into("<HHH", data, root + pointer, root // PAGE & 0xFFFF, root // PAGE >> 16, 0)


def _to_the_end(data: bytearray, root: int) -> None:
    below = struct.unpack_from("<H", data, root + 12)[0]
    for pointer in struct.unpack_from(f"<{(below - 16) // 2}H", data, root + 16):
        struct.pack_into("<HHH", data, root + pointer, 0xFFFF, 0xFFFF, 0xFFFF)


def leaves_changed(change: Callable[[bytearray, int], None]) -> Callable[[], bytes]:
    """Every leaf's every node."""

    def make() -> bytes:
        data = bytearray(data_set())
        for page in range(2, len(data) // PAGE):
            flags, below = struct.unpack_from("<HH", data, page * PAGE + 10)
            if flags == 2 and 16 <= below <= PAGE:
                for pointer in struct.unpack_from(f"<{(below - 16) // 2}H", data, page * PAGE + 16):
                    change(data, page * PAGE + pointer)
        return bytes(data)

    return make


def _every(form: str, at: int, value: int) -> Callable[[bytearray, int], None]:
    return lambda data, node: struct.pack_into(form, data, node + at, value)


sets(REFUSED, {
    f"cut to {kept}": lambda kept=kept: data_set()[: int(len(data_set()) * kept) if kept < 1 else int(kept)]
    for kept in (1, 100, 4095, 4096, 8191, 8192, 8193, 12288, 0.25, 0.5, 0.75, 0.999)
})  # fmt: skip
sets(REFUSED, {
    "nothing": lambda: b"",
    "zeros": lambda: bytes(1 << 16),
    "another magic number": meta(0, 0xDEADBEEF, "<I"),
    "another version": meta(4, 999, "<I"),
    "a last page of 2^40": meta(LAST, 2**40),
    "a last page of 2^63": meta(LAST, 2**63),
    "a last page before the first": meta(LAST, 1),
    "a root beyond the file": meta(ROOT, 2**40),
    "a root among the first pages": meta(ROOT, 1),
    "a root of nothing": meta(ROOT, 2**64 - 1),
    "pages of 0 bytes": meta(24, 0, "<I"),
    "pages of 3 bytes": meta(24, 3, "<I"),
    "pages of 2^31 bytes": meta(24, 2**31, "<I"),
    "pages of twice the size": meta(24, 2 * PAGE, "<I"),
    "a root that is all its children": root_changed(_to_itself),
    "children at the end of the world": root_changed(_to_the_end),
    "a root of no kind": root_changed(lambda data, root: struct.pack_into("<H", data, root + 10, 0)),
    "a root of every kind": root_changed(lambda data, root: struct.pack_into("<H", data, root + 10, 0xFFFF)),
    "a root of 32,000 nodes": root_changed(
        lambda data, root: struct.pack_into("<HH", data, root + 12, 0xFFFF, 0xFFFF)),
    "nodes below their page": root_changed(
        lambda data, root: data.__setitem__(slice(root + 16, root + 32), b"\xff" * 16)),
    "nodes on their page's head": root_changed(
        lambda data, root: data.__setitem__(slice(root + 16, root + 32), bytes(16))),
    "keys of 65,535 bytes": leaves_changed(_every("<H", 6, 0xFFFF)),
    "keys of no bytes": leaves_changed(_every("<H", 6, 0)),
    "values of 4 GB": leaves_changed(_every("<I", 0, 2**32 - 1)),
    "values of 60 MB elsewhere": leaves_changed(lambda data, node: struct.pack_into("<IH", data, node, 60 << 20, 1)),
    "values on other pages that are none": leaves_changed(_every("<H", 4, 1)),
    "values that are tables": leaves_changed(_every("<H", 4, 2)),
    "values that are many": leaves_changed(_every("<H", 4, 4)),
})  # fmt: skip
sets(REFUSED, {
    f"num-samples of {samples[:12]!r}, {len(samples)} bytes": lambda samples=samples: data_set(3, samples)
    for samples in (b"", b"-1", b"4", b"1e9", b"nan", b"9" * 30, b"9" * 1900, b"\xff\xff", b"3\n\x1b[31m", b"0x3",
                    b"3.0")
})  # fmt: skip
sets(EITHER, {
    "num-samples of digits elsewhere": lambda: data_set(3, "٣".encode()),
    "num-samples with a line's end": lambda: data_set(3, b"3\n"),
    "num-samples of 0": lambda: data_set(3, b"0"),
    "a transaction of 2^64 - 1": meta(TRANSACTION, 2**64 - 1),
    "a depth of 65,535": meta(DEPTH, 0xFFFF, "<H"),
    "entries of 2^64 - 1": meta(ENTRIES, 2**64 - 1),
    "every flag": meta(FLAGS, 0xFFFF, "<H"),
    "a map of 2^63": meta(16, 2**63),
    "a map at an address": meta(8, 0x7FFF00000000),
    "one meta page of zeros": lambda: bytes(PAGE) + data_set()[PAGE:],
})  # fmt: skip


@hostile(KIND, REFUSED, name="a folder called data.mdb")
def _(folder: Path) -> None:
    (folder / "data.mdb").mkdir(parents=True)


@hostile(KIND, REFUSED, name="a pipe called data.mdb")
def _(folder: Path) -> None:
    folder.mkdir()
    os.mkfifo(folder / "data.mdb")


@hostile(KIND, REFUSED, name="no folder at all")
def _(folder: Path) -> None:
    pass


@hostile(KIND, EITHER, name="a hole of 64 GB behind")
def _(folder: Path) -> None:
    folder.mkdir()
    (folder / "data.mdb").write_bytes(data_set())
    os.truncate(folder / "data.mdb", 1 << 36)


sets(ANSWERED, {"a good data set": data_set})
