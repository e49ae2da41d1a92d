"""What a batch job finds in its inputs, and how it is cut into chunks."""

from __future__ import annotations

import os
import threading
import tracemalloc

import numpy as np
import pytest
from batch_inputs import CROPS, crops_in, read, rows

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
