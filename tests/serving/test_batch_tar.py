"""Tar files as inputs of a batch job: whole, damaged and hostile."""

from __future__ import annotations

import gzip
import lzma
import tarfile
import tracemalloc

import pytest
from batch_inputs import CROPS, read, tar

pytest.importorskip("pyarrow")


@pytest.mark.parametrize("mode, name", [("w", "a.tar"), ("w:gz", "a.tar.gz")])
def test_tar_files_whole_and_in_parts(recognizer, words, tmp_path, mode, name):
    members = [(f"{'long/' * 40}{crop.name}", crop.read_bytes()) for crop in CROPS]  # names that need a header more
    members[5:5] = [("a.json", b"{}"), ("._b.jpg", b"x"), ("bad.png", b"bad")]
    shard = tar(tmp_path / name, members, mode)
    with tarfile.open(shard, "a" if mode == "w" else "r") as archive:
        if mode == "w":
            link = tarfile.TarInfo("link.jpg")
            link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
            archive.addfile(link)
    found, count = read(recognizer, [shard])
    assert count == (4 if mode == "w" else 1)
    assert {row["member"].rpartition("/")[2]: row["text"] for row in found} == {**words, "bad.png": None}
    assert [row["member"] for row in found] == [n for n, _ in members if n not in ("a.json", "._b.jpg")]


@pytest.mark.parametrize("fault", ["cut", "header", "no end", "huge name", "nothing"])
def test_a_damaged_tar_file_says_so_after_what_came_before(recognizer, words, tmp_path, fault):
    """tarfile takes a damaged header within a file for its end, in silence."""
    shard = tar(tmp_path / "a.tar", [(crop.name, crop.read_bytes()) for crop in CROPS])
    data = bytearray(shard.read_bytes())
    with tarfile.open(shard) as archive:
        header = archive.getmembers()[20].offset
        end = archive.getmembers()[-1]
    if fault == "cut":
        data = data[: header + 700]
    elif fault == "header":
        data[header + 148] ^= 0x55
    elif fault == "no end":
        data = data[: end.offset_data + -(-end.size // 512) * 512]
    elif fault == "huge name":
        long = tarfile.TarInfo("././@LongLink")
        long.type, long.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
        data[header : header + 512] = long.tobuf(tarfile.GNU_FORMAT)
    else:
        data = bytearray(b"not a tar file")
    shard.write_bytes(data)
    found, _ = read(recognizer, [shard], size=8)
    before = {"no end": 32, "nothing": 0}.get(fault, 20)
    assert [row["member"] for row in found] == [crop.name for crop in CROPS[:before]] + [None]
    assert found[-1]["error"] and found[-1]["path"] == str(shard)
    assert all(row["error"] is None for row in found[:-1])


def pax(values: dict[str, str], name: str = "a.jpg", body: bytes = b"", kind: bytes = tarfile.XHDTYPE) -> bytes:
    """A member with a header before it that says more."""
    said = b""
    for key, value in values.items():
        length = len(f" {key}={value}\n")
        length += len(str(length + len(str(length))))
        said += f"{length} {key}={value}\n".encode()
    header, member = tarfile.TarInfo("pax"), tarfile.TarInfo(name)
    header.type, header.size, member.size = kind, len(said), len(body)
    padded = [data.ljust(-(-len(data) // 512) * 512, b"\0") for data in (said, body)]
    return header.tobuf(tarfile.USTAR_FORMAT) + padded[0] + member.tobuf(tarfile.USTAR_FORMAT) + padded[1]


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("kind", ["back", "1.0", "0.1", "0.0", "old"])
def test_hostile_tar_headers_end_in_an_error(recognizer, words, tmp_path, kind, first):
    """Walks without end, and maps of holes that take more memory than the file has bytes."""
    if kind == "back":
        hostile = pax({"size": "-1536"})
    elif kind == "old":
        member = tarfile.TarInfo("a.jpg")
        member.type = tarfile.GNUTYPE_SPARSE
        hostile = member.tobuf(tarfile.GNU_FORMAT)
    elif kind == "1.0":
        said = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "9"}
        hostile = pax(said, body=b"400000\n" + b"0\n" * 800_000)
    else:
        key = "GNU.sparse.map" if kind == "0.1" else "GNU.sparse.size"
        hostile = pax({key: "0,1," * 9000 + "0,1"} if kind == "0.1" else {key: "9"})
    before = [] if first else [(crop.name, crop.read_bytes()) for crop in CROPS[:3]]
    whole = tar(tmp_path / "a.tar", before).read_bytes()
    with tarfile.open(tmp_path / "a.tar") as archive:
        archive.getmembers()
        end = archive.offset if before else 0
    (tmp_path / "a.tar").write_bytes(whole[:end] + hostile + b"\0" * 1024)
    tracemalloc.start()
    found, _ = read(recognizer, [tmp_path / "a.tar"], size=2)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [row["member"] for row in found] == [name for name, _ in before] + [None]
    assert ("leads back" if kind == "back" else "sparse") in found[-1]["error"] and peak < 30e6


def test_global_headers_are_not_gathered_without_end(recognizer, tmp_path):
    """tarfile keeps every one, and copies all for each member: a megabyte, packed, takes minutes."""
    member = (CROPS[0].name, CROPS[0].read_bytes())
    usual = pax({"comment": "of git archive"}, *member, tarfile.XGLTYPE)
    usual += b"\0" * (-len(usual) % 512)
    hostile = [pax({f"key{number}": "x" * 60_000}, "a.txt", kind=tarfile.XGLTYPE) for number in range(300)]
    (tmp_path / "a.tar.gz").write_bytes(gzip.compress(usual + b"".join(hostile) + b"\0" * 1024))
    tracemalloc.start()
    found, _ = read(recognizer, [tmp_path / "a.tar.gz"])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [row["member"] for row in found] == [member[0], None] and "global headers" in found[1]["error"]
    assert peak < 10e6


@pytest.mark.parametrize("packed", [gzip.compress, lzma.compress])
def test_what_is_packed_densely_is_unpacked_piece_by_piece(recognizer, tmp_path, packed):
    """tarfile unpacks at once what a megabyte of the file has, which may be a gigabyte."""
    member = tarfile.TarInfo("a.txt")
    member.size = 64 << 20
    content = tar(tmp_path / "a.tar", [(CROPS[0].name, CROPS[0].read_bytes())]).read_bytes()
    path = tmp_path / "b.tar.gz"
    path.write_bytes(packed(member.tobuf() + bytes(member.size) + content))
    tracemalloc.start()
    found, _ = read(recognizer, [path])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [(row["member"], row["error"]) for row in found] == [(CROPS[0].name, None)] and peak < 20e6
