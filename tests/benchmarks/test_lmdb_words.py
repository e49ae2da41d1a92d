"""The LMDB reader: what it reads, and one clear line for each thing that can be wrong."""

from __future__ import annotations

import numpy as np
import pytest

from clip4str.benchmarks.lmdb_words import LmdbWords, find_lmdb
from clip4str.runtime import DataError

PIXELS = np.zeros((8, 16, 3), np.uint8)


def test_reads_in_order(tmp_path, write_lmdb):
    folder = write_lmdb(tmp_path / "set", [(PIXELS, f"wörd {i}") for i in range(12)])
    with LmdbWords(folder) as words:
        assert len(words) == 12
        assert [label for _, label in words] == [f"wörd {i}" for i in range(12)]
        assert all(image.startswith(b"\x89PNG") for image, _ in words)  # a second pass starts anew
    assert find_lmdb(tmp_path) == [folder]


@pytest.mark.parametrize("missing", ["image-000000002", "label-000000001", "num-samples"])
def test_missing_entries_are_named(tmp_path, write_lmdb, missing):
    folder = write_lmdb(tmp_path / "set", [(PIXELS, "a"), (PIXELS, "b")], without=[missing])
    with pytest.raises(DataError, match=missing), LmdbWords(folder) as words:
        list(words)


def test_labels_must_be_utf8(tmp_path, write_lmdb):
    folder = write_lmdb(tmp_path / "set", [(PIXELS, b"caf\xe9")])
    with pytest.raises(DataError, match="label-000000001 is not UTF-8"), LmdbWords(folder) as words:
        list(words)


def test_not_an_lmdb(tmp_path):
    with pytest.raises(DataError, match="is not a folder"):
        LmdbWords(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"has no data\.mdb"):
        LmdbWords(tmp_path)
    (tmp_path / "data.mdb").write_bytes(b"not a database" * 1000)
    with pytest.raises(DataError, match="not a readable LMDB"):
        LmdbWords(tmp_path)
    with pytest.raises(DataError, match="not a folder"):
        find_lmdb(tmp_path / "nowhere")
