"""Folders of pictures, patterns, and frames that the caller makes."""

import numpy as np
import pytest
from PIL import Image

from clip4str.core.errors import ImageError, SourceError, UsageError
from clip4str.video.frames import Frame
from clip4str.video.sources import open_source


def save(path, value=100, size=(20, 30)):
    Image.fromarray(np.full((*size, 3), value, np.uint8)).save(path)
    return path


def values(source):
    return [int(frame.pixels[0, 0, 0]) for frame in source]


def test_a_folder_in_the_order_of_its_numbers(tmp_path):
    for number in (10, 2, 1, 30):
        save(tmp_path / f"frame{number}.png", number)
    (tmp_path / "notes.txt").write_text("no picture")
    with open_source(tmp_path, rate=4) as source:
        assert (source.frames, source.rate, source.size, source.live) == (4, 4, (20, 30), False)
        frames = list(source)
    assert values(frames) == [1, 2, 10, 30]
    assert [(frame.time, frame.duration, frame.layout) for frame in frames] == [(n / 4, 0.25, "rgb") for n in range(4)]


def test_a_pattern_and_a_single_picture(tmp_path):
    for number in (1, 2, 11):
        save(tmp_path / f"a{number}.png", number)
    save(tmp_path / "b1.png", 200)
    assert values(open_source(str(tmp_path / "a*.png"))) == [1, 2, 11]
    (frame,) = open_source(tmp_path / "b1.png", rate=2)
    assert (frame.time, frame.duration) == (0, 0.5)
    with pytest.raises(SourceError, match="matches nothing"):
        open_source(str(tmp_path / "c*.png"))
    (tmp_path / "a.mp4").write_bytes(b"x")
    with pytest.raises(SourceError, match=r"a.mp4, too, which is no picture"):
        open_source(str(tmp_path / "a*"))


def test_a_picture_of_another_size_breaks_what_was_followed(tmp_path):
    save(tmp_path / "1.png")
    save(tmp_path / "2.png", size=(30, 40))
    assert [frame.broken for frame in open_source(tmp_path)] == ["", "size changed"]


def test_a_picture_that_cannot_be_read_is_told_and_its_time_passes(tmp_path):
    for number in (1, 3):
        save(tmp_path / f"{number}.png", number)
    (tmp_path / "2.png").write_bytes(b"nothing of the kind")
    source = open_source(tmp_path, rate=10, ahead=0)
    with pytest.warns(UserWarning, match="2.png: not an image"):
        frames = list(source)
    assert [(frame.index, round(frame.time, 6), round(frame.duration, 6)) for frame in frames] == [
        (0, 0, 0.2),
        (1, 0.2, 0.1),
    ]
    assert source.dropped == 1


@pytest.mark.filterwarnings("ignore:.*not an image")
def test_a_folder_without_a_picture_is_one_line(tmp_path):
    with pytest.raises(SourceError, match="a folder without pictures"):
        open_source(tmp_path)
    for name in ("1.png", "2.png"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
    with pytest.raises(SourceError, match="no frame"):
        open_source(tmp_path)
    with pytest.raises(SourceError, match=r"1.png: not an image"):
        open_source(tmp_path / "1.png")


def test_arrays_get_their_times_from_the_rate():
    frames = list(open_source((np.full((4, 6, 3), n, np.uint8) for n in range(3)), rate=5, layout="bgr"))
    assert [(frame.index, frame.time, frame.duration, frame.layout) for frame in frames] == [
        (n, n / 5, 0.2, "bgr") for n in range(3)
    ]
    assert values(frames) == [0, 1, 2]
    assert open_source([np.zeros((4, 6, 3), np.uint8)] * 7).frames == 7


def test_the_callers_frames_keep_their_times_and_are_not_copied():
    given = [Frame(np.zeros((4, 6, 3), np.uint8), time) for time in (0, 0.5, 0.51)]
    source = open_source(iter(given))
    got = [next(source), *source]
    assert [frame.time for frame in got] == [0, 0.5, 0.51] and [frame.index for frame in got] == [0, 1, 2]
    assert all(a.pixels is b.pixels for a, b in zip(got, given)) and source.size == (4, 6)


def test_what_the_caller_gets_wrong_is_named():
    with pytest.raises(ImageError, match=r"frame 0: expected uint8 \(H, W, 3\)"):
        next(open_source([np.zeros((4, 6), np.uint8)]))
    with pytest.raises(UsageError, match=r"frame 1 is of 1 s, the one before of 2 s"):
        list(open_source([Frame(np.zeros((4, 6, 3), np.uint8), time) for time in (2, 1)]))

    def broken():
        yield np.zeros((4, 6, 3), np.uint8)
        raise KeyError("the caller's own")

    source = open_source(broken())
    next(source)
    with pytest.raises(KeyError):
        next(source)
