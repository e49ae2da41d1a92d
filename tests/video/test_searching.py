"""Searches on a thread of their own: words come later, and where they are by then."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from clips import needed

from clip4str.core.errors import SourceError, UsageError
from clip4str.video.detect import Detections
from clip4str.video.frames import Frame

cv2 = needed("cv2", "video")
from boards import Board  # noqa: E402  (needs cv2)
from cameras import Live  # noqa: E402

from clip4str.video.events import WordEnded  # noqa: E402
from clip4str.video.flow import small  # noqa: E402
from clip4str.video.reader import VideoReader  # noqa: E402
from clip4str.video.searching import Searching  # noqa: E402

LONG = 60.0


class Slow:
    """Finds nothing until it may."""

    def __init__(self, inner):
        self.inner, self.may, self.asked = inner, threading.Event(), []

    def detect(self, frame):
        self.asked.append(frame.index)
        assert self.may.wait(LONG)
        return self.inner.detect(frame)


@pytest.fixture
def background():
    with ThreadPoolExecutor(1) as executor:
        yield executor


def ground(shift):
    texture = np.random.default_rng(0).integers(0, 255, (30, 52), np.uint8)
    whole = cv2.resize(texture, None, fx=8, fy=8, interpolation=cv2.INTER_CUBIC)
    return np.ascontiguousarray(np.repeat(whole[:, 40 - shift : 360 - shift, None], 3, 2))


def test_words_are_where_they_have_moved_to_while_they_were_searched(background):
    quad = np.array([[100, 80], [180, 80], [180, 110], [100, 110]], np.float32)
    there, here = (Frame(ground(shift), 0.0, shift) for shift in (0, 7))
    slow = Slow(type("", (), {"detect": lambda self, frame: Detections(quad[None], np.ones(1, np.float32))})())
    searching = Searching(slow, background=background)
    before, now = (small(frame.pixels[..., 0]) for frame in (there, here))
    assert searching.begin(there, before) is None and searching.pending and searching.result(now) is None
    slow.may.set()
    background.submit(int).result()
    found, _ = searching.result(now)
    assert np.abs(found.quads[0] - quad - [7, 0]).max() < 0.5
    assert not searching.pending and searching.result(now) is None


def test_what_was_searched_in_another_scene_is_dropped(background):
    slow = Slow(Board(["A"]))
    searching = Searching(slow, background=background)
    frame = Board(["A"]).frames()[0]
    seen = small(frame.pixels[..., 0])
    searching.begin(frame, seen)
    searching.drop()
    slow.may.set()
    background.submit(int).result()
    assert searching.result(seen) is None and searching.begin(frame, seen) is None


def test_a_detector_that_fails_meanwhile_fails_the_reader(background):
    broken = type("", (), {"detect": lambda self, frame: "nothing"})()
    searching = Searching(broken, background=background)
    frame = Board(["A"]).frames()[0]
    seen = small(frame.pixels[..., 0])
    searching.begin(frame, seen)
    background.submit(int).result()
    with pytest.raises(UsageError):
        searching.result(seen)


@pytest.mark.parametrize("frames", [1, 30, 100])
def test_a_live_source_that_ends_while_it_is_searched_loses_no_word(frames):
    """However long the search takes, what it finds has been there since."""
    board = Board(["HOTEL"] * frames)
    slow = Slow(board)
    source = Live(board.frames(), 0, lambda: threading.Timer(0.3, slow.may.set).start())
    told = list(VideoReader(board, slow).run(source))
    (word,) = (e for e in told if isinstance(e, WordEnded))
    assert (word.text, word.start, word.end) == ("HOTEL", 0, pytest.approx(frames / 10))
    assert told[-1].ended and told[-1].reads <= told[-1].crops


def test_a_live_source_that_fails_while_it_is_searched_loses_no_word():
    board = Board(["HOTEL"] * 3)
    slow = Slow(board)

    def fail():
        threading.Timer(0.3, slow.may.set).start()
        raise SourceError("the camera is gone")

    told, reading = [], VideoReader(board, slow).run(Live(board.frames(), 2, fail))
    with pytest.raises(SourceError, match="camera is gone"):
        for event in reading:
            told.append(event)
    assert [e.text for e in told if isinstance(e, WordEnded)] == ["HOTEL"]


def test_words_of_the_last_frame_are_told_though_no_other_comes():
    board = Board(["HOTEL"])
    slow = Slow(board)
    source = Live(board.frames(), 0, lambda: threading.Timer(0.3, slow.may.set).start())
    source.wait = lambda timeout=None: bool(source.left)  # hangs
    for event in VideoReader(board, slow).run(source):
        if isinstance(event, WordEnded):
            break
    assert event.text == "HOTEL"


def test_a_live_source_is_not_held_up_by_a_search_and_its_words_are_told_from_their_start():
    board = Board(["HOTEL"] * 30)
    slow = Slow(board)
    source = Live(board.frames(), 8, slow.may.set)
    told = list(VideoReader(board, slow).run(source))
    (word,) = (e for e in told if isinstance(e, WordEnded))
    assert slow.asked[0] == 0 and (word.text, word.end) == ("HOTEL", pytest.approx(3.0))
    assert word.start == 0
    assert not [t for t in threading.enumerate() if t.name.startswith("search")]
