"""Data sets with pictures that are none: some give way and are named, all are an error, and no program is started."""

from __future__ import annotations

from pathlib import Path

import lmdb
import pytest
from tiny import train, write_lmdb

from clip4str.core.errors import DataError
from clip4str.core.text import Charset
from clip4str.training.data import Stream, load_validation, load_words
from clip4str.training.logbook import HeldOut

EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 50 50\n%%EndComments\nshowpage\n"


def spoil(folder: Path, rows: range, content: bytes = EPS) -> Path:
    with lmdb.open(str(folder)) as environment, environment.begin(write=True) as txn:
        for row in rows:
            txn.put(b"image-%09d" % row, content)
    return folder


@pytest.fixture
def no_program(monkeypatch):
    """Pillow starts Ghostscript for an EPS."""
    from PIL import EpsImagePlugin

    monkeypatch.setattr(EpsImagePlugin, "Ghostscript", lambda *_, **__: pytest.fail("Ghostscript was started"))


@pytest.mark.parametrize("content", [EPS, b"not a picture", b""])
def test_a_set_without_a_picture_that_can_be_decoded_is_an_error(tmp_path, small_is_tiny, capsys, no_program, content):
    folder = spoil(write_lmdb(tmp_path / "words", ["stop"] * 30), range(1, 31), content)
    assert train(folder, tmp_path / "run", "--steps", "1") == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert f"{folder}: none of the " in error and "pictures can be decoded" in error


def test_pictures_that_gave_way_are_counted_and_named(tmp_path, small_is_tiny, capsys, no_program):
    folder = spoil(write_lmdb(tmp_path / "words", [f"w{i}" for i in range(12)]), range(1, 11))
    for workers in ("0", "1"):
        run = tmp_path / f"run{workers}"
        assert train(folder, run, "--steps", "20", "--validate-every", "100", "--workers", workers) == 0
        error = capsys.readouterr().err
        assert "pictures could not be decoded and gave way to others: words image-0000000" in error


def test_a_set_that_lost_all_its_pictures_meanwhile_is_an_error_after_one_round(tmp_path):
    words, _ = load_words([write_lmdb(tmp_path / "words", ["a", "b", "c"])], Charset())
    spoil(tmp_path / "words", range(1, 4))
    with pytest.raises(DataError, match=r"none of 3 pictures can be decoded any more, the last: words image-"):
        Stream([(words, 1.0, 1.0)], Charset(), (16, 64), batch=2).make(0)


def test_what_a_worker_process_says_is_one_line(tmp_path, small_is_tiny, capsys):
    folder = write_lmdb(tmp_path / "words", ["stop"] * 40)
    with lmdb.open(str(folder)) as environment, environment.begin(write=True) as txn:
        for row in range(2, 41):
            txn.delete(b"image-%09d" % row)
    assert train(folder, tmp_path / "run", "--steps", "9", "--workers", "1", "--validation", str(folder)) == 2
    assert train(folder, tmp_path / "run", "--steps", "9", "--workers", "1", "--synthetic", str(folder)) == 2
    error = capsys.readouterr().err.splitlines()[-1]
    assert error.startswith("clip4str train: error: ") and "has no image-0000000" in error and "Traceback" not in error


def test_validation_says_what_it_leaves_out(tmp_path):
    spoil(write_lmdb(tmp_path / "held" / "some", ["a", "b", "c"]), range(1, 3))
    sets, _, _ = load_validation([tmp_path / "held"], Charset())
    held = HeldOut(sets, (16, 64), 10)
    assert (len(held), held.undecodable) == (1, {"some": 2})
    spoil(tmp_path / "held" / "some", range(1, 4))
    with pytest.raises(DataError, match="validation set some: none of its 3 pictures can be decoded"):
        HeldOut(load_validation([tmp_path / "held"], Charset())[0], (16, 64), 10)
