"""Containers and videos in a store that stops answering while they are read."""

from __future__ import annotations

import io

import pytest
from batch_inputs import CROPS, rows, tar

pytest.importorskip("pyarrow")
pytest.importorskip("fsspec")

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq

from clip4str.core.packaged import PACKAGED
from clip4str.runtime import Recognizer, SourceError
from clip4str.serving.batch import listing, stores
from clip4str.serving.batch.batch_command import main
from clip4str.serving.batch.chunks import VIDEO, Chunk
from clip4str.serving.batch.results import ChunkReader

MAIN = ["--chunk", "8", "--workers", "1", "--bundle", str(PACKAGED)]


class Failing:
    """A file of a store that fails from `broken` on, as often as `times` says, over all that are opened."""

    def __init__(self, content: bytes, faults: dict[str, int]) -> None:
        self._file, self._faults, self.size = io.BytesIO(content), faults, len(content)

    def __getattr__(self, name: str):
        return getattr(self._file, name)

    def read(self, size: int = -1) -> bytes:
        at = self._file.tell()
        end = self.size if size < 0 else min(self.size, at + size)
        if at <= self._faults["from"] < end and self._faults["times"] > 0:
            self._faults["times"] -= 1
            self._file.read(100)  # what came before it broke off is lost
            raise ConnectionError("reset by peer")
        return self._file.read(size)


@pytest.fixture
def outage(tmp_path, monkeypatch):
    """A container of each kind, in a store of which the caller sets when reads fail."""
    monkeypatch.setattr(stores, "WAITS", (0.0, 0.0))
    store, faults = fsspec.filesystem("memory"), {"from": 0, "times": 0}
    shard = tar(tmp_path / "a.tar", [(crop.name, crop.read_bytes()) for crop in CROPS])
    tar(tmp_path / "a.tar.gz", [(crop.name, crop.read_bytes()) for crop in CROPS], "w:gz")
    table = pa.table({"jpg": [crop.read_bytes() for crop in CROPS]})
    pq.write_table(table, tmp_path / "a.parquet", row_group_size=16)
    for each in (shard, tmp_path / "a.tar.gz", tmp_path / "a.parquet"):
        store.pipe(f"/broken/{each.name}", each.read_bytes())
    store.pipe("/videos/to go on.mp4", b"no video")
    monkeypatch.setattr(type(store), "open", lambda self, path, *_, **__: Failing(self.cat_file(path), faults))
    return faults


@pytest.mark.parametrize("where", [0.01, 0.5, 0.999])
@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.parquet"])
def test_an_outage_within_a_container_is_no_row(outage, tmp_path, name, where):
    """A short one is read over; a long one ends the job, which is gone on with."""
    output, job = tmp_path / "words.parquet", [f"memory://broken/{name}", "--output", str(tmp_path / "words.parquet")]
    outage.update({"from": int((tmp_path / name).stat().st_size * where), "times": 1000})
    with pytest.raises(SourceError, match="run the same command later to go on"):
        main([*job, *MAIN])
    assert not output.exists()
    outage["times"] = 2
    assert main([*job, *MAIN]) == 0
    assert outage["times"] == 0
    with Recognizer.load(PACKAGED, threads=1) as recognizer:
        wanted = [word.text for word in recognizer.read(CROPS)]
    assert [row["text"] for row in rows(output)] == wanted


def test_an_outage_while_a_container_is_cut_is_no_single_chunk(outage, tmp_path):
    outage.update({"from": (tmp_path / "a.parquet").stat().st_size - 4, "times": 1000})
    with pytest.raises(SourceError):
        list(listing.chunks(["memory://broken/a.parquet"], 16))
    outage["times"] = 2
    assert len(list(listing.chunks(["memory://broken/a.parquet"], 16))) == 2


def test_a_video_of_a_store_whose_name_says_what_an_outage_does(outage):
    """Its fault is a row of its own, without the name of the copy that is read."""
    pytest.importorskip("cv2")
    pytest.importorskip("rapidocr")
    from clip4str.serving.batch.videos import video_reader

    with Recognizer.load(PACKAGED, threads=1) as recognizer:
        reader = ChunkReader(recognizer, None, video_reader)
        chunk = Chunk(0, VIDEO, "memory://videos/to go on.mp4")
        (row,) = reader.read(chunk).to_pylist()
        assert row["error"] and "/tmp" not in row["error"] and "clip4str-" not in row["error"]
        outage.update({"from": 0, "times": 1000})
        with pytest.raises(SourceError, match="later to go on"):
            reader.read(chunk)
