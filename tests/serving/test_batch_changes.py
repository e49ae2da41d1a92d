"""Inputs that change while a batch job runs."""

from __future__ import annotations

import shutil

import pytest
from batch_inputs import CROPS, tar

pytest.importorskip("pyarrow")

import pyarrow as pa
import pyarrow.parquet as pq

from clip4str.runtime import Recognizer
from clip4str.serving.batch import listing
from clip4str.serving.batch.batch_command import video_reader
from clip4str.serving.batch.results import ChunkReader


@pytest.fixture(scope="module")
def recognizer():
    return Recognizer.load(threads=1)


@pytest.mark.parametrize("how", ["before", "meanwhile"])
@pytest.mark.parametrize("kind", ["tar", "parquet", "lmdb"])
def test_what_changed_since_it_was_listed_is_an_error_and_no_words(recognizer, write_lmdb, tmp_path, kind, how):
    """A shard is cut by bytes, and the same bytes of another file begin within another picture, or at one too many."""
    path, pictures = tmp_path / f"a.{kind}", [(crop.name, crop.read_bytes()) for crop in CROPS]

    def write(first, last):
        if kind == "tar":
            tar(path, pictures[first:last])
        elif kind == "parquet":
            pq.write_table(pa.table({"jpg": [each for _, each in pictures[first:last]]}), path, row_group_size=8)
        else:
            shutil.rmtree(path, ignore_errors=True)
            write_lmdb(path, [(each, "x") for _, each in pictures[first:last]])

    class Changing:
        """Another file under the name once a batch is read."""

        batch_size = recognizer.batch_size

        def read_batches(self, many):
            for words in recognizer.read_batches(many):
                write(1, 31)
                yield words

    write(0, 32)
    made = list(listing.chunks([str(path)], 8))
    if how == "before":
        write(1, 32)
    found = ChunkReader(recognizer if how == "before" else Changing(), None, video_reader).read(made[1]).to_pylist()
    assert [(row["path"], row["member"], row["text"]) for row in found] == [(str(path), None, None)]
    assert found[0]["error"] == "changed since it was listed; begin a new job" and len(made) == 4
