"""Which sets and words are read: numbers, labels, limits, names."""

from __future__ import annotations

import numpy as np
import pytest

from clip4str.core.errors import UsageError
from clip4str.data.labelled_words import choose_sets, labelled
from clip4str.data.protocol import Protocol
from clip4str.data.word_lmdb import LmdbWords


@pytest.fixture
def folder(write_lmdb, tmp_path):
    red = np.zeros((8, 20, 3), np.uint8)
    red[..., 0] = 200
    write_lmdb(tmp_path / "svt", [(red, "Ab-1"), (red, "???"), (b"broken", "lost"), (red, "x" * 26), (red, "end")])
    write_lmdb(tmp_path / "mine", [(red, "a")])
    return tmp_path


def test_words_that_count_keep_their_numbers(folder):
    with LmdbWords(folder / "svt") as words:
        found = list(labelled(words, Protocol()))
        assert [(word.number, word.label, word.stored) for word in found] == [
            (1, "ab1", "Ab-1"), (3, "lost", "lost"), (5, "end", "end"),
        ]  # fmt: skip
        assert found[1].pixels is None and found[0].pixels.shape == (8, 20, 3)
        assert found[0].pixels[0, 0, 0] > 150 > found[0].pixels[0, 0, 2]  # red first
        assert [word.number for word in labelled(words, Protocol(), 2)] == [1, 3]


def test_sets_go_by_any_usual_name_and_standard_ones_come_alone(folder):
    assert choose_sets([folder], None) == {"SVT": folder / "svt"}
    assert choose_sets([folder], ["mine", "svt647"]) == {"mine": folder / "mine", "SVT": folder / "svt"}
    assert list(choose_sets([folder / "mine"], None)) == ["mine"]
    with pytest.raises(UsageError, match="no set named yours; found: SVT, mine"):
        choose_sets([folder], ["yours"])
