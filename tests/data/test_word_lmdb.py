"""The LMDB reader: what it reads, and one clear line for each thing that can be wrong."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys

import numpy as np
import pytest

from clip4str.core.errors import DataError
from clip4str.data.word_lmdb import LmdbWords, find_lmdb

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


def test_training_reads_them_leniently(tmp_path, write_lmdb):
    with LmdbWords(write_lmdb(tmp_path / "set", [(PIXELS, b"caf\xe9")])) as words:
        assert words.label(1, errors="replace") == "caf\ufffd"
        assert words.image(np.int64(1)).startswith(b"\x89PNG")


@pytest.mark.parametrize("count", ["-3", "9" * 30, "1000000000", "many", ""])
def test_number_of_samples_is_checked(tmp_path, write_lmdb, count):
    folder = write_lmdb(tmp_path / "set", [(PIXELS, "a")], num_samples=count)
    with pytest.raises(DataError, match=r"num-samples is .*not a number from 0 to 999999999"):
        LmdbWords(folder)


def test_incomplete_copy(tmp_path, write_lmdb):
    """Reading past the end of the file would kill the process."""
    folder = write_lmdb(tmp_path / "set", [(bytes(9000), f"word {i}") for i in range(20)])
    file = folder / "data.mdb"
    whole = file.read_bytes()
    for kept in (len(whole) // 2, len(whole) - 1):
        file.write_bytes(whole[:kept])
        with pytest.raises(DataError, match=r"data\.mdb: is shorter than it says; is the copy complete\?"):
            LmdbWords(folder)
    file.write_bytes(whole)
    with LmdbWords(folder) as words:
        assert len(list(words)) == 20


def test_two_readers_of_one_folder(tmp_path, write_lmdb):
    folder = write_lmdb(tmp_path / "set", [(PIXELS, "a"), (PIXELS, "b")])
    (tmp_path / "link").symlink_to(folder)
    first, second = LmdbWords(folder), LmdbWords(tmp_path / "link")
    left = iter(first)
    assert next(left)[1] == "a"
    second.close()
    assert next(left)[1] == "b"  # opened anew
    first.close()


def test_pickled(tmp_path, write_lmdb):
    with LmdbWords(write_lmdb(tmp_path / "set", [(PIXELS, "a")])) as words:
        copy = pickle.loads(pickle.dumps(words))
        assert (len(copy), copy.label(1)) == (1, "a")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
def test_read_by_parent_and_child_after_a_fork(tmp_path, write_lmdb):
    with LmdbWords(write_lmdb(tmp_path / "set", [(PIXELS, f"w{i}") for i in range(300)])) as words:
        assert words.label(1) == "w0"
        child = os.fork()
        fine = all(words.label(i) == f"w{i - 1}" for i in range(1, 301))
        if child == 0:  # no assert may return into pytest from here
            os._exit(0 if fine else 1)
        assert fine and os.waitpid(child, 0)[1] == 0


def test_reading_needs_neither_torch_nor_lmdb(tmp_path, write_lmdb):
    folder = write_lmdb(tmp_path / "set", [(PIXELS, "a")])
    code = (
        "import sys; from clip4str.data.word_lmdb import LmdbWords; LmdbWords(sys.argv[1]).label(1);"
        "sys.exit(bool({'torch', 'lmdb'} & sys.modules.keys()))"
    )
    assert subprocess.run([sys.executable, "-c", code, str(folder)]).returncode == 0


def test_a_folder_mended_after_it_failed_is_read(tmp_path, write_lmdb):
    folder = write_lmdb(tmp_path / "set", [(PIXELS, "a")])
    whole = (folder / "data.mdb").read_bytes()
    (folder / "data.mdb").write_bytes(b"not a database" * 1000)
    with pytest.raises(DataError, match="not a readable LMDB"):
        LmdbWords(folder)
    (folder / "data.mdb").write_bytes(whole)
    assert [label for _, label in LmdbWords(folder)] == ["a"]


def test_not_an_lmdb(tmp_path):
    with pytest.raises(DataError, match="is not a folder"):
        LmdbWords(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"has no data\.mdb"):
        LmdbWords(tmp_path)
    (tmp_path / "data.mdb").write_bytes(b"not a database" * 1000)
    with pytest.raises(DataError, match="not a readable LMDB"):
        LmdbWords(tmp_path)
    with pytest.raises(DataError, match="is not a folder"):
        find_lmdb(tmp_path / "data.mdb")


def test_folders_are_walked(tmp_path, write_lmdb):
    for name in ("b", "b/deep", "a", ".part"):
        write_lmdb(tmp_path / "root" / name, [(PIXELS, name)])
    away = write_lmdb(tmp_path / "away", [(PIXELS, "linked")])
    for name, target in {"c": away, "d": away, "b/loop": tmp_path / "root"}.items():
        (tmp_path / "root" / name).symlink_to(target)
    found = [str(path.relative_to(tmp_path / "root")) for path in find_lmdb(tmp_path / "root")]
    assert found == ["a", "b", "b/deep", "c"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no LMDB data set"):
        find_lmdb(tmp_path / "empty")
    with pytest.raises(DataError, match="does not exist"):
        find_lmdb(tmp_path / "nowhere")
