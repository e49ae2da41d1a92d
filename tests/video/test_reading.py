"""Crops of live sources are read on a thread of its own: later, and as of the frame that they are of."""

from __future__ import annotations

import os
import signal
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from clips import needed

from clip4str.core.errors import BackendError, SourceError
from clip4str.video.frames import Frame

needed("cv2", "video")
from boards import Board, ended  # noqa: E402  (needs cv2)
from cameras import Camera, Live, Looks, Stalls, Surer, Told, Two, soon  # noqa: E402

from clip4str.video.events import Gap, WordEnded, WordFound  # noqa: E402
from clip4str.video.reader import VideoReader  # noqa: E402
from clip4str.video.reading import Reading  # noqa: E402


def test_a_live_source_is_not_held_up_while_its_words_are_read():
    board = Board(["HOTEL"] * 30)
    reads = Looks(board)
    source = Camera(
        board.frames(), reads, 20, reads.may.set
    )  # which is not reached before, were the reading waited for
    told = list(VideoReader(reads, board).run(source))
    assert ended(told) == [("HOTEL", 0.0, 3.0)]
    (found,) = (e for e in told if isinstance(e, WordFound))
    assert found.time >= 2.0 and reads.threads[0].startswith("read")
    assert not [t for t in threading.enumerate() if t.name.startswith("read_")]


@pytest.mark.parametrize("frames", [1, 3, 30])
def test_a_live_source_that_ends_while_it_is_read_loses_no_word(frames):
    board = Board(["HOTEL"] * frames)
    reads = Looks(board)
    told = list(VideoReader(reads, board).run(Camera(board.frames(), reads, 0, soon(reads.may))))
    assert ended(told) == [("HOTEL", 0.0, frames / 10)]


def test_what_is_read_when_the_picture_becomes_another_is_of_the_one_before():
    board = Board(["HOTEL"] * 6)
    reads = Looks(board)
    frames = board.frames()
    frames += [Frame(np.full((90, 200, 3), 90 + i, np.uint8), 0.6 + i / 10, 6 + i, duration=0.1) for i in range(3)]
    finds = type("", (), {"detect": lambda self, frame: board.detect(frame if frame.index < 6 else nothing)})()
    board.plan.append("")
    nothing = Frame(frames[0].pixels, 0.0, 6)
    told = list(VideoReader(reads, finds).run(Camera(frames, reads, 6, soon(reads.may))))
    assert ended(told) == [("HOTEL", 0.0, 0.6)]
    assert [e.reason for e in told if isinstance(e, Gap)] == ["size changed"]


def test_an_answer_that_comes_when_another_word_is_in_the_place_is_of_the_word_that_was_there():
    board = Board(["HOTEL"] * 10 + ["EXIT 7"] * 25)
    reads = Looks(board, free=1)  # the second batch is under way while the word changes
    told = list(VideoReader(reads, board).run(Camera(board.frames(), reads, 14, reads.may.set, idle=20)))
    words = [e for e in told if isinstance(e, WordEnded)]
    assert [word.text for word in words] == ["HOTEL", "EXIT 7"]
    assert words[0].start == 0 and words[1].end == pytest.approx(3.5)
    assert words[0].end == pytest.approx(1.0, abs=0.11) and words[1].start == pytest.approx(1.0, abs=0.11)


def test_what_was_asked_while_a_word_was_there_counts_though_it_has_gone():
    board = Board(["HOTEL"] * 9 + [""] * 8)
    reads = Surer(board, free=1)
    told = list(VideoReader(reads, board).run(Camera(board.frames(), reads, 14, reads.may.set, idle=20)))
    assert [e.text for e in told if isinstance(e, WordEnded)] == ["HOTEL"]


def test_a_word_is_not_given_up_while_it_is_read():
    board = Board(["HOTEL"] * 4)
    reads = Looks(board)
    source = Stalls(board.frames(), reads, 3, lambda: threading.Timer(0.9, reads.may.set).start())
    told = list(VideoReader(reads, board, revive=0.1).run(source))
    assert [e.text for e in told if isinstance(e, WordEnded)] == ["HOTEL"]


@pytest.mark.parametrize("how", ["size changed", "cut", "interrupted", "ends"])
def test_words_found_while_others_are_read_are_read_before_they_are_gone(how):
    board = Two(["HOTEL"] * 24, 6)
    reads = Looks(board, board.other)
    frames, then = board.frames(), soon(reads.may)
    bright = np.random.default_rng(5).integers(180, 255, (*board.size, 3), np.uint8)
    another = {"size changed": np.full((90, 200, 3), 90, np.uint8), "cut": bright}.get(how)
    if another is not None:
        board.plan += [""] * 3
        frames += [Frame(another, 2.4 + i / 10, 24 + i, duration=0.1) for i in range(3)]

    def interrupt():
        soon(reads.may)()
        raise KeyboardInterrupt

    source = Camera(frames, reads, 23, interrupt if how == "interrupted" else then, pace=0.02)
    told = []
    try:
        for event in VideoReader(reads, board, detect_every=2).run(source):
            told.append(event)
    except KeyboardInterrupt:
        assert how == "interrupted"
    assert sorted(e.text for e in told if isinstance(e, WordEnded)) == ["HOTEL", "MUSEUM"]


def test_an_answer_that_was_waited_for_in_vain_is_waited_for_again():
    board = Board(["HOTEL"] * 4)
    reads = Looks(board)
    with ThreadPoolExecutor(1) as background:
        reading = Reading(reads, True, background)
        stream = Told()
        reading.begin([(stream, ["a request"])])
        stop = threading.Timer(0.2, lambda: os.kill(os.getpid(), signal.SIGINT))
        stop.start()
        with pytest.raises(KeyboardInterrupt):
            reading.answered(wait=True)
        assert reading.busy and not stream.told
        reads.may.set()
        reading.answered(wait=True)
    assert stream.told == ["HOTEL"] and not reading.busy


def test_a_recogniser_that_fails_meanwhile_ends_the_reading_and_what_was_read_is_told():
    board = Board(["HOTEL"] * 60)

    class Breaks(Looks):
        def read(self, images, on_error="raise"):
            words = super().read(images, on_error)
            if self.may.is_set() and len(self.threads) and getattr(self, "before", False):
                raise BackendError("the device is gone")
            self.before = True
            return words

    reads = Breaks(board, sure=0.6)  # not sure: it is read again
    reads.may.set()
    told = []
    with pytest.raises(BackendError, match="device is gone"):
        for event in VideoReader(reads, board).run(Live(board.frames(), 0, int)):
            told.append(event)
    assert [e.text for e in told if isinstance(e, WordEnded)] == ["HOTEL"]


def test_a_source_that_fails_while_it_is_read_loses_no_word():
    board = Board(["HOTEL"] * 4)
    reads = Looks(board)

    def fail():
        soon(reads.may)()
        raise SourceError("the camera is gone")

    told = []
    with pytest.raises(SourceError, match="camera is gone"):
        for event in VideoReader(reads, board).run(Camera(board.frames(), reads, 3, fail)):
            told.append(event)
    assert [e.text for e in told if isinstance(e, WordEnded)] == ["HOTEL"]


def test_two_cameras_read_together_have_their_own_words():
    boards = [Board(["HOTEL"] * 20), Board(["MUSEUM"] * 20, at=(20, 30))]
    reads = Looks(*boards)

    def by_source(frame):
        near = [np.abs(frame.pixels.astype(int) - board.pixels(frame.index)).mean() for board in boards]
        return boards[int(np.argmin(near))].detect(frame)

    finds = type("", (), {"detect": lambda self, frame: by_source(frame)})()
    sources = [Live(boards[0].frames(), 0, int), Camera(boards[1].frames(), reads, 10, reads.may.set)]
    told = [e for e in VideoReader(reads, finds).run(*sources) if isinstance(e, WordEnded)]
    assert sorted((e.source, e.text) for e in told) == [(0, "HOTEL"), (1, "MUSEUM")]


@pytest.mark.parametrize(
    ("rates", "given", "wanted"),
    [
        ([25.0], None, [40.0]),
        ([25.0, 75.0], None, [10.0, 10.0]),
        ([90000.0], None, [None]),  # a clock's rate, as some cameras say
        ([None], None, [None]),
        ([25.0], 7.0, [7.0]),
    ],
)
def test_live_sources_have_their_frames_time_unless_another_is_given(rates, given, wanted):
    board = Board(["HOTEL"] * 3)
    reads = Looks(board)
    reads.may.set()
    sources = [Live(board.frames(), 0, int) for _ in rates]
    for source, rate in zip(sources, rates):
        source.rate = rate
    reader = VideoReader(reads, board, budget=given)
    assert list(reader.run(*sources))
    assert [stream.schedule.budget for stream in reader._running] == wanted


class Gives(Live):
    """The frames of a board at these times. lost: how many were dropped before each; arrived: when each came, where
    that is known."""

    def __init__(self, board, times, told, lost=None, arrived=None):
        lasting = [replace(f, time=time, duration=None) for f, time in zip(board.frames(), times)]
        super().__init__(
            [replace(f, arrived=when) for f, when in zip(lasting, arrived or [None] * len(times))], -1, int
        )
        self.rate, self.lost = told, iter(lost or [0] * len(times))

    def __next__(self):
        self.dropped += next(self.lost, 0)
        return super().__next__()


def every(step, count=30, begin=0.0):
    return [begin + step * n for n in range(count)]


NIGHT_AND_DAY = every(0.2, 20) + every(0.12, 30, 4.0)


@pytest.mark.parametrize(
    ("told", "times", "lost", "wanted"),
    [
        (90.0, every(0.1), None, 100.0),  # in the dark; before, searched and read as seldom as at 90 a second
        (5.0, every(0.05), None, 50.0),
        (None, every(0.04), None, 40.0),
        (None, every(0.04), [1] * 30, 20.0),
        (25.0, every(0.2), [1] * 30, 100.0),
        (25.0, every(0.001), None, 40.0),  # nothing gives a thousand a second
        (25.0, NIGHT_AND_DAY, [0] * 20 + [2] * 30, 40.0),  # by day each is dropped before the next
        (25.0, every(0.04, 20) + every(0.04, 30, 90.0), None, 40.0),  # held up for a minute and a half
    ],
)
def test_a_camera_that_gives_another_rate_than_it_tells_has_the_time_that_its_frames_last(told, times, lost, wanted):
    board = Board(["HOTEL"] * len(times))
    reads = Looks(board)
    reads.may.set()
    reader = VideoReader(reads, board)
    assert "HOTEL" in [word for word, *_ in ended(list(reader.run(Gives(board, times, told, lost))))]
    (stream,) = reader._running
    assert stream.schedule.budget == pytest.approx(wanted, rel=0.02)


def test_time_stamps_that_a_decoder_made_up_do_not_tell_how_often_frames_come():
    """FFmpeg gives pictures over HTTP, which have none, those of 25 a second."""
    board = Board(["HOTEL"] * 30)
    reads = Looks(board)
    reads.may.set()
    reader = VideoReader(reads, board)
    bursts = [0.3 * (n // 3) for n in range(30)]  # they come by threes
    assert len(ended(list(reader.run(Gives(board, every(0.04), None, arrived=bursts))))) == 1
    assert reader._running[0].schedule.budget == pytest.approx(100.0, rel=0.1)


def test_a_camera_that_has_ended_leaves_its_time_to_the_others():
    board = Board(["HOTEL"] * 30)
    reads = Looks(board)
    reads.may.set()
    short, long = Gives(board, every(0.1), 10.0), Gives(board, every(0.1), 10.0)
    short.left = short.left[:15]
    reader = VideoReader(reads, board)
    assert len(ended(list(reader.run(short, long)))) == 2
    assert [stream.schedule.budget for stream in reader._running] == [pytest.approx(50.0), pytest.approx(100.0)]


def test_words_are_told_while_a_source_is_paused_and_do_not_end():
    """Their answer comes in the pause, which is longer than a word that is gone is waited for."""
    board = Board(["HOTEL"] * 6)
    reads = Looks(board)

    class Held(Camera):
        paused, since = False, None

        def wait(self, timeout=None):
            if len(self.left) == 2 and self.since is None:
                self.paused, self.since = True, time.monotonic()
                soon(reads.may)()
            if self.paused and time.monotonic() < self.since + 0.8:
                time.sleep(0.02)
                return False
            self.paused = False
            return super().wait(timeout)

    source, told = Held(board.frames(), reads, -1, int), []
    for event in VideoReader(reads, board, revive=0.1).run(source):
        told.append((type(event), source.paused))
    assert (WordFound, True) in told and [what for what, _ in told].count(WordEnded) == 1
    assert (WordEnded, True) not in told


def test_files_take_the_time_that_they_take():
    board = Board(["HOTEL"] * 3)
    reads = Looks(board)
    reads.may.set()
    reader = VideoReader(reads, board)
    assert ended(list(reader.run(board.frames()))) == [("HOTEL", 0.0, 0.3)]
    assert [stream.schedule.budget for stream in reader._running] == [None]
    assert set(reads.threads) == {threading.current_thread().name}
