"""What a batch job finds in its inputs, and how it is cut into chunks."""

from __future__ import annotations

import gzip
import lzma
import os
import tarfile
import threading
import tracemalloc

import numpy as np
import pytest
from batch_inputs import CROPS, crops_in, read, rows, tar

pytest.importorskip("pyarrow")

import pyarrow as pa
import pyarrow.parquet as pq

from clip4str.core.packaged import PACKAGED
from clip4str.runtime import UsageError
from clip4str.serving.batch import listing
from clip4str.serving.batch.batch_command import main, video_reader
from clip4str.serving.batch.chunks import Chunk
from clip4str.serving.batch.job import remaining
from clip4str.serving.batch.results import ChunkReader


def test_folders_patterns_and_files_in_order(recognizer, words, tmp_path):
    folder = crops_in(tmp_path / "crops")
    (folder / "below").mkdir()
    (folder / "below" / "last.jpg").write_bytes(CROPS[0].read_bytes())
    (folder / ".hidden.jpg").write_bytes(b"")
    (folder / "notes.txt").write_text("no picture")
    (folder / "000-99.jpg").write_text("no picture either")
    found, count = read(recognizer, [folder, folder / "*-01-*.jpg", folder / "notes.txt"])
    assert count == 4
    names = [f"000-{crop.name}" for crop in CROPS]
    shown = [row["path"].rpartition("/")[2] for row in found]
    assert shown == [*sorted([*names, "000-99.jpg"]), "last.jpg", names[0], "notes.txt"]
    assert {row["path"].rpartition("/")[2]: row["text"] for row in found if row["path"].endswith(tuple(names))} == {
        f"000-{name}": text for name, text in words.items()
    }
    errors = {row["path"].rpartition("/")[2]: row["error"] for row in found if row["error"]}
    assert errors == dict.fromkeys(["000-99.jpg", "notes.txt"], "not an image that Pillow can read")


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


@pytest.mark.parametrize("pattern", ["**", "**/", "*", "**/x*"])
def test_what_a_pattern_matches_along_with_its_folder_is_read_once(recognizer, tmp_path, pattern):
    places = ["x.jpg", "xa/x1.jpg", "xa/xb/x2.jpg", "xa-1/x3.jpg"]
    for place in places:
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_bytes(CROPS[0].read_bytes())
    for root in (str(tmp_path), f"file://{tmp_path}"):
        found, _ = read(recognizer, [f"{root}/{pattern}"])
        assert sorted(row["path"] for row in found) == sorted(f"{root}/{place}" for place in places)


def test_links_to_nowhere_and_names_that_are_no_utf8(recognizer, tmp_path):
    folder = crops_in(tmp_path / "crops")
    for crop in sorted(folder.iterdir())[2:]:
        crop.unlink()
    (folder / "z.jpg").symlink_to(folder / "none")
    found, _ = read(recognizer, [folder / "*.jpg"])
    assert [row["error"] is None for row in found] == [True, True, False] and "no such file" in found[2]["error"]
    strange, output = tmp_path / os.fsdecode(b"\xff"), tmp_path / "words.parquet"
    folder.rename(strange)
    assert main([str(strange), "--output", str(output), "--bundle", str(PACKAGED), "--quiet"]) == 0
    assert [row["path"].rpartition("/")[0] for row in rows(output)] == [f"{tmp_path}/\\xff"] * 3
    assert main([str(strange), "--output", str(output), "--bundle", str(PACKAGED), "--quiet"]) == 0


def test_local_and_remote_files_keep_their_order(recognizer, words):
    fsspec = pytest.importorskip("fsspec")
    store, inputs = fsspec.filesystem("memory"), []
    for number, crop in enumerate(CROPS[:6]):
        store.pipe(f"/order/{crop.name}", crop.read_bytes())
        inputs.append(f"memory:///order/{crop.name}" if number % 2 == 0 else str(crop))
    found, count = read(recognizer, inputs)
    assert count == 1 and [row["path"] for row in found] == inputs
    assert [row["text"] for row in found] == list(words.values())[:6]


def test_lmdb_folders(recognizer, words, write_lmdb, tmp_path):
    samples = [(crop.read_bytes(), "label") for crop in CROPS]
    write_lmdb(tmp_path / "sets" / "one", samples, without=["image-000000003"])
    write_lmdb(tmp_path / "sets" / "liar", samples[:2], num_samples="999999999")
    found, _ = read(recognizer, [tmp_path / "sets"], size=16)
    assert "999,999,999 samples" in found[0]["error"]
    assert [row["member"] for row in found[1:]] == [f"image-{n:09d}" for n in range(1, 33)]
    assert [row["text"] for row in found[1:]] == [None if i == 2 else t for i, t in enumerate(words.values())]
    assert "has no image-000000003" in found[3]["error"]


def test_videos_give_a_row_for_each_word(recognizer, tmp_path):
    pytest.importorskip("cv2")
    pytest.importorskip("rapidocr")
    import cv2

    frame = np.full((240, 320, 3), 255, np.uint8)
    cv2.putText(frame, "STREET", (40, 130), cv2.FONT_HERSHEY_SIMPLEX, 2, (0, 0, 0), 5)
    for name, picture in (("word.mp4", frame), ("blank.mp4", np.full_like(frame, 255))):
        writer = cv2.VideoWriter(str(tmp_path / name), cv2.VideoWriter.fourcc(*"mp4v"), 10, (320, 240))
        for _ in range(8):
            writer.write(picture)
        writer.release()
    (tmp_path / "zero.mp4").write_bytes(b"no video")
    found, count = read(recognizer, [tmp_path])
    assert count == 3
    blank, word, zero = found
    assert (blank["text"], blank["error"]) == (None, None)
    assert (word["text"], word["start"], len(word["quad"])) == ("STREET", 0, 8)
    assert word["end"] == pytest.approx(0.8)
    assert zero["error"] and zero["text"] is None


def test_a_store_that_fsspec_knows(recognizer, words):
    fsspec = pytest.importorskip("fsspec")
    store = fsspec.filesystem("memory")
    for crop in CROPS[:12]:
        store.pipe(f"/bucket/crops/{crop.name}", crop.read_bytes())
    store.pipe("/bucket/crops/bad.jpg", b"bad")
    table = pa.table({"jpg": [crop.read_bytes() for crop in CROPS[:3]]})
    with store.open("/bucket/more/a.parquet", "wb") as file:
        pq.write_table(table, file)
    for inputs in (["memory://bucket/"], ["memory://bucket/crops/*.jpg", "memory://bucket/more/a.parquet"]):
        found, _ = read(recognizer, inputs, size=5)
        assert {row["path"].rpartition("/")[2]: row["text"] for row in found if row["member"] is None} == {
            **{crop.name: words[crop.name] for crop in CROPS[:12]}, "bad.jpg": None,
        }  # fmt: skip
        assert [row["text"] for row in found if row["member"] is not None] == list(words.values())[:3]
    with pytest.raises(UsageError, match="no such file or folder"):
        listing.check(["memory://bucket/none"])
    with pytest.raises(UsageError, match="Protocol not known"):
        listing.check(["nosuch://bucket/none"])


@pytest.mark.parametrize("given, said", [("", "an empty input"), ("-", "standard input"), ("/no/such", "no such file")])
def test_inputs_that_name_nothing(given, said):
    with pytest.raises(UsageError, match=said):
        listing.check([given])


def test_other_contents_under_old_names_are_noticed(tmp_path):
    folder = crops_in(tmp_path / "crops")
    before = {chunk.number: chunk.key for chunk in listing.chunks([str(folder)], 8)}
    assert list(remaining(listing.chunks([str(folder)], 8), before, "job")) == []
    (folder / f"000-{CROPS[20].name}").write_bytes(b"another")
    with pytest.raises(UsageError, match="the inputs changed since this job began"):
        list(remaining(listing.chunks([str(folder)], 8), before, "job"))
    (folder / f"000-{CROPS[20].name}").unlink()
    for crop in CROPS[24:]:
        (folder / f"000-{crop.name}").unlink()
    with pytest.raises(UsageError, match="there are fewer inputs than when this job began"):
        list(remaining(listing.chunks([str(folder)], 8), {3: before[3]}, "job"))


def test_chunks_survive_being_sent():
    chunk = Chunk(7, "files", names=("a\udcffb", "c"), stamp="0" * 16)
    assert Chunk.from_json(chunk.to_json()) == chunk and len(chunk.key) == 16


def test_listing_holds_a_folder_at_a_time(tmp_path):
    """Not all names of all folders: twice as many folders take no more."""

    def peak(folders):
        for number in range(folders):
            (tmp_path / f"{number:03d}").mkdir(exist_ok=True)
            for name in range(400):
                (tmp_path / f"{number:03d}" / f"{name:05d}-{'x' * 60}.jpg").touch()
        tracemalloc.start()
        count = sum(len(chunk.names) for chunk in listing.chunks([str(tmp_path)], 100))
        top = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert count == 400 * folders
        return top

    few, many = peak(4), peak(16)
    assert many < 1.3 * few


def test_a_reader_that_is_stopped_ends_within_a_batch(recognizer, tmp_path):
    from clip4str.serving.batch.results import Stopped

    stopped = threading.Event()
    stopped.set()
    (chunk,) = listing.chunks([str(crops_in(tmp_path / "crops"))], 100)
    with pytest.raises(Stopped):
        ChunkReader(recognizer, None, video_reader, stopped).read(chunk)
