"""Pictures that training leaves out, as near_duplicates.py lists them."""

import hashlib

import pytest
from tiny import write_lmdb

from clip4str.core.errors import DataError
from clip4str.core.text import Charset
from clip4str.data.left_out import read_left_out
from clip4str.data.word_lmdb import LmdbWords
from clip4str.training.data import load_words


def test_listed_pictures_are_in_neither_part(tmp_path):
    folder = write_lmdb(tmp_path / "words", [f"word{i}" for i in range(40)])
    with LmdbWords(folder) as words:
        digests = {words.label(row): hashlib.sha256(words.image(row)).hexdigest() for row in (3, 17)}
    listed = tmp_path / "leave-out.tsv"
    listed.write_text("set\trow\tsha256\n" + "".join(f"words\t{k}\t{d}\n" for k, d in enumerate(digests.values())))
    before = load_words([folder], Charset(), 0.3)
    after = load_words([folder], Charset(), 0.3, left_out=read_left_out(listed))
    assert set(digests) == {"word2", "word16"}
    for whole, part in zip(before, after):
        assert part.labels == [label for label in whole.labels if label not in digests]
    assert len(before[0]) + len(before[1]) == 40 and len(after[0]) + len(after[1]) == 38


@pytest.mark.parametrize("content", ["", "set\trow\n", "set\trow\tsha256\nSVT\t1\tabc\n", b"\xff\xfe"])
def test_what_is_no_such_list(tmp_path, content):
    path = tmp_path / "list.tsv"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(DataError, match=r"list\.tsv"):
        read_left_out(path)
    with pytest.raises(DataError, match="missing"):
        read_left_out(tmp_path / "missing")
