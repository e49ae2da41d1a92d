"""The reader of LMDB files beside the lmdb library, and over files that would end a process which maps them."""

from __future__ import annotations

import os
import random
import resource
import struct
import subprocess
import sys
from pathlib import Path

import lmdb
import pytest

from clip4str.core.errors import DataError
from clip4str.data import lmdb_file
from clip4str.data.lmdb_file import LmdbFile
from clip4str.data.word_lmdb import LmdbWords

PAGE = 4096
MEMORY, SECONDS = 1 << 30, 60  # of the child process that reads hostile files


def write(folder: Path, entries: dict[bytes, bytes], steps: int = 1) -> Path:
    folder.mkdir(parents=True)
    keys = list(entries)
    with lmdb.open(str(folder), map_size=1 << 28) as environment:
        for step in range(steps):  # pages of earlier transactions are freed and used again
            with environment.begin(write=True) as txn:
                for key in keys[step::steps]:
                    txn.put(key, entries[key])
    return folder / "data.mdb"


def words(count: int, size: int = 5000) -> dict[bytes, bytes]:
    entries = {b"num-samples": str(count).encode()}
    for i in range(1, count + 1):
        entries[b"image-%09d" % i] = bytes([i % 251]) * size
        entries[b"label-%09d" % i] = b"word%d" % i
    return entries


@pytest.mark.parametrize("count, steps", [(1, 1), (30, 2), (3000, 7)])
def test_values_are_those_that_the_library_reads(tmp_path, count, steps):
    rng = random.Random(count)
    sizes = (0, 1, 7, 2040, 2041, 4080, 4081, 9000)  # in the page, just in it, in pages of their own
    entries = {rng.randbytes(rng.choice((1, 15, 200, 511))): rng.randbytes(rng.choice(sizes)) for _ in range(count)}
    file = LmdbFile(write(tmp_path / "set", entries, steps))
    with lmdb.open(str(tmp_path / "set"), readonly=True, lock=False) as environment, environment.begin() as txn:
        depth = environment.stat()["depth"]
        for key in [*entries, b"", b"\0", b"key-", b"zzz", b"\xff" * 511]:
            assert file.get(key) == txn.get(key or b"\0\0")
    assert depth == {1: 1, 30: 2, 3000: 3}[count]


def test_an_empty_database_has_no_keys(tmp_path):
    assert LmdbFile(write(tmp_path / "set", {})).get(b"num-samples") is None


def test_a_file_that_is_cut_while_it_is_read_is_an_error(tmp_path):
    path = write(tmp_path / "set", words(50))
    data = LmdbWords(path.parent)
    assert data.label(1) == "word1"
    os.truncate(path, 3 * PAGE)
    with pytest.raises(DataError, match="became shorter while it was read"):
        for number in range(1, 51):
            data.image(number)


def test_keys_in_another_order_and_other_tables_are_refused(tmp_path):
    with lmdb.open(str(tmp_path), map_size=1 << 24, max_dbs=2) as environment, environment.begin(write=True) as txn:
        txn.put(b"num-samples", b"1", db=environment.open_db(b"label-000000001", txn))
    with pytest.raises(DataError, match="a value that is none"):
        LmdbFile(tmp_path / "data.mdb").get(b"label-000000001")


def hostile() -> dict[str, bytes | tuple[bytes, int]]:
    """Files by what is done to them; with a length where they are holes beyond their bytes."""
    good = (Path(sys.argv[1]) / "data.mdb").read_bytes()
    metas = [struct.unpack_from("<Q", good, start + 144)[0] for start in (0, PAGE)]
    meta = PAGE * (metas[1] > metas[0]) + 16
    root = struct.unpack_from("<Q", good, meta + 112)[0]
    kinds = [struct.unpack_from("<H", good, start + 10)[0] & 0x7F for start in range(0, len(good), PAGE)]
    large = kinds.index(4)
    for leaf in (number for number, kind in enumerate(kinds) if number > 1 and kind == 2):
        node = leaf * PAGE + struct.unpack_from("<H", good, leaf * PAGE + 16)[0]
        if good[node + 8 :].startswith(b"image-0"):
            break
    below = root * PAGE + struct.unpack_from("<H", good, root * PAGE + 16)[0]

    def with_bytes(*changes: tuple[int, str, int]) -> bytes:
        changed = bytearray(good)
        for place, form, value in changes:
            struct.pack_into("<" + form, changed, place, value)
        return bytes(changed)

    both = [start + 16 for start in (0, PAGE)]
    found: dict[str, bytes | tuple[bytes, int]] = {
        "root far away": with_bytes((meta + 112, "Q", 2**40)),
        "root is a meta page": with_bytes((meta + 112, "Q", 1)),
        "root is a picture": with_bytes((meta + 112, "Q", large)),
        "more pages than bytes": with_bytes((meta + 120, "Q", 2**63)),
        "pages of no size": with_bytes(*((place + 24, "I", 0) for place in both)),
        "pages of a gigabyte": with_bytes(*((place + 24, "I", 1 << 30) for place in both)),
        "a branch that leads to itself": with_bytes((below, "H", root), (below + 2, "H", 0), (below + 4, "H", 0)),
        "a branch that leads far away": with_bytes((below, "H", 0xFFFF), (below + 4, "H", 0xFFFF)),
        "a branch without nodes": with_bytes((root * PAGE + 12, "H", 16)),
        "more nodes than bytes": with_bytes((leaf * PAGE + 12, "H", 0xFFFF)),
        "a node beyond its page": with_bytes((leaf * PAGE + 16, "H", 0xFFF0)),
        "a key of 64 KB": with_bytes((node + 6, "H", 0xFFFF)),
        "a picture of 4 GB": with_bytes((node, "H", 0xFFFF), (node + 2, "H", 0xFFFF)),
        "a picture elsewhere": with_bytes((node + 8 + 15, "Q", 2**50)),
        "cut in half": good[: len(good) // 2],
        "its head alone": good[: 2 * PAGE],
        "a billion words": good.replace(b"num-samples300", b"num-samples999"),
    }
    claimed = with_bytes((meta + 120, "Q", 2**21 - 1), (node, "H", 0xFFFF), (node + 2, "H", 0xFFFF))
    found["a picture of 4 GB in a file of 8"] = (claimed, 2**21 * PAGE)
    rng = random.Random(0)
    for case in range(150):
        changed = bytearray(good)
        for _ in range(rng.choice((1, 4, 30))):
            # where structure is: heads of pages, the rest of pages that are no pictures
            page = rng.choice([number for number, kind in enumerate(kinds) if kind != 4 or rng.random() < 0.02])
            changed[page * PAGE + rng.choice((rng.randrange(PAGE), rng.randrange(16, 200)))] = rng.randrange(256)
        found[f"bytes changed, {case}"] = bytes(changed)
    return found


def read_hostile_files() -> None:
    """In a process of its own: prints what came of every file."""
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    for number, (name, content) in enumerate(hostile().items()):
        folder = Path(sys.argv[1]) / str(number)
        folder.mkdir()
        (folder / "data.mdb").write_bytes(content if isinstance(content, bytes) else content[0])
        if isinstance(content, tuple):
            os.truncate(folder / "data.mdb", content[1])
        try:
            read = sum(len(image) > 0 for image, _ in LmdbWords(folder))
            print(f"{name}\t{read} words", flush=True)
        except DataError as error:
            print(f"{name}\t{str(error).partition(': ')[2]}", flush=True)
        (folder / "data.mdb").unlink()


def test_no_hostile_file_ends_the_process_or_takes_memory_without_bound(tmp_path):
    write(tmp_path / "set", words(300))
    code = "import sys; sys.path.insert(0, sys.argv[2]); import test_lmdb_file; test_lmdb_file.read_hostile_files()"
    here = Path(__file__).parent
    done = subprocess.run(
        [sys.executable, "-c", code, str(tmp_path / "set"), str(here)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr[-2000:]
    said = dict(line.split("\t") for line in done.stdout.splitlines())
    assert len(said) == 168
    assert not [name for name, what in said.items() if "changed" not in name and what == "300 words"], said
    assert said["a picture of 4 GB in a file of 8"] == "not a readable LMDB (a value of 4294967295 bytes)"
    assert said["a branch that leads to itself"] == f"not a readable LMDB (more than {lmdb_file.DEEPEST} levels)"
    assert said["cut in half"] == "is shorter than it says; is the copy complete?"
    assert all(len(line) < 200 for line in said.values())
