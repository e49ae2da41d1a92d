"""Frames read by a thread: ahead, or the newest alone; streams that break off."""

import itertools
import threading
import time

import numpy as np
import pytest

from clip4str.core.errors import SourceError
from clip4str.video.frames import Frame
from clip4str.video.sources import open_source
from clip4str.video.sources import opening as opening_module
from clip4str.video.sources.base import Picture, Source
from clip4str.video.sources.live import Newest
from clip4str.video.sources.prefetch import Prefetch
from clip4str.video.sources.streams import Stream

PIXELS = np.zeros((4, 6, 3), np.uint8)
LONG = 20.0  # seconds that nothing here takes


class Steps(Source):
    """Gives frame n once it is let: `let(n)`; ends, or raises, after `count`."""

    name, live = "steps", False

    def __init__(self, count=10**9, error=None, broken=()):
        super().__init__()
        self.count, self.error, self.broken = count, error, broken
        self.given, self.closed = 0, 0
        self.allowed = threading.Semaphore(0)

    def let(self, frames=1):
        self.allowed.release(frames)

    def __next__(self):
        while not self.allowed.acquire(timeout=0.05):
            if self.stopping.is_set():
                raise StopIteration
        if self.given == self.count:
            raise self.error or StopIteration
        self.given += 1
        number = self.given - 1
        return Frame(PIXELS, number / 10, number, broken="reconnected" if number in self.broken else "")

    def close(self):
        self.closed += 1


def until(true):
    end = time.monotonic() + LONG
    while not true():
        assert time.monotonic() < end
        time.sleep(0.002)


def test_a_late_reader_gets_the_newest_frame_and_the_rest_is_counted():
    inner = Steps(broken=(2,))
    with Newest(inner) as source:
        inner.let(5)
        until(lambda: source.dropped == 4)
        frame = next(source)
        assert (frame.index, frame.broken, source.live) == (
            4,
            "reconnected",
            True,
        )  # what happened before 2
        assert not source.wait(0.01)
        inner.let()
        assert source.wait(LONG) and next(source).index == 5 and source.dropped == 4
    assert inner.closed == 1 and next(source, None) is None


def test_a_reader_that_is_late_for_a_moment_misses_nothing_where_some_frames_are_kept():
    inner = Steps(broken=(2,))
    with Newest(inner, kept=3) as source:
        inner.let(3)
        until(lambda: inner.given == 3)
        assert [next(source).index for _ in range(3)] == [0, 1, 2] and source.dropped == 0
        inner.let(5)
        until(lambda: source.dropped == 2)
        assert [next(source).index for _ in range(3)] == [5, 6, 7]


def test_what_happened_before_a_frame_that_is_dropped_is_told_of_the_first_that_is_kept():
    inner = Steps(broken=(1,))
    with Newest(inner, kept=2) as source:
        inner.let(4)
        until(lambda: source.dropped == 2)
        assert [next(source).broken for _ in range(2)] == ["reconnected", ""]


def test_a_file_waits_for_its_reader_four_frames_ahead():
    inner = Steps(count=9)
    with Prefetch(inner) as source:
        inner.let(100)
        until(lambda: inner.given == 5)  # four waiting, one in hand
        time.sleep(0.05)
        assert inner.given == 5 and source.dropped == 0
        assert [frame.index for frame in source] == list(range(9))
    assert inner.closed == 1


@pytest.mark.parametrize("kind", [Prefetch, Newest])
def test_what_goes_wrong_in_the_thread_is_raised_once_behind_the_frames(kind):
    inner = Steps(count=1, error=SourceError("steps: broke off"))
    source = kind(inner)
    inner.let(9)
    until(lambda: inner.closed)
    assert next(source).index == 0
    with pytest.raises(SourceError, match="broke off"):
        next(source)
    assert next(source, None) is None and source.wait(0)


@pytest.mark.parametrize("kind", [Prefetch, Newest])
def test_closing_ends_the_thread_and_whoever_waits(kind):
    inner = Steps()
    source = kind(inner)
    got = []
    waiting = threading.Thread(target=lambda: got.append(next(source, "ended")))
    waiting.start()
    source.close()
    waiting.join(LONG)
    assert got == ["ended"] and inner.closed == 1 and not source._thread.is_alive()
    source.close()
    inner = Steps()
    source = kind(inner)
    inner.let(100)
    until(lambda: inner.given > 4)
    source.close()
    assert inner.closed == 1 and next(source, None) is None


def test_a_decoder_that_hangs_does_not_hold_up_closing(monkeypatch):
    monkeypatch.setattr("clip4str.video.sources.threads.PATIENCE", 0.05)

    class Hanging(Source):
        name, let_go = "hanging", threading.Event()

        def __next__(self):
            self.let_go.wait(LONG)
            raise StopIteration

    source = Newest(Hanging())
    source.close()
    assert next(source, None) is None and source._thread.is_alive()
    Hanging.let_go.set()
    source._thread.join(LONG)


def test_a_file_played_as_if_it_were_live_comes_at_its_own_pace():
    frames = [Frame(PIXELS, n / 20, n, duration=0.05) for n in range(4)]
    began = time.monotonic()
    with Newest(open_source(frames), paced=True) as source:
        assert [frame.index for frame in source] == [0, 1, 2, 3]  # as nobody is late
    assert time.monotonic() - began >= 0.15 and source.dropped == 0


def test_a_file_played_as_if_it_were_live_begins_when_somebody_looks():
    """A network may take minutes to load after its source was opened."""
    frames = [Frame(PIXELS, n / 20, n, duration=0.05) for n in range(9)]
    with Newest(open_source(frames), paced=True, kept=2) as source:
        time.sleep(0.6)
        assert source.wait(LONG) and [frame.index for frame in source] == list(range(9)) and source.dropped == 0
    with Newest(open_source(frames), paced=True) as source:
        assert source.wait(LONG)
    source._thread.join(LONG)
    assert not source._thread.is_alive()


class Connection:
    """A Decoder of so many pictures. told: their times."""

    def __init__(self, told, error=None):
        self.name, self.rate, self.frames, self.dropped = "rtsp://camera/1", 25.0, None, 0
        self.told, self.error, self.closed = told, error, False

    def pictures(self):
        for when in self.told:
            yield Picture(PIXELS, when)
        if self.error:
            raise self.error

    def close(self):
        self.closed = True


def stream(*connections, **options):
    """A Stream over what its connections are to be: Connections, or errors."""
    rest = iter(connections[1:])

    def connect(quick):
        following = next(rest, None) or SourceError("rtsp://camera/1: nobody there")
        if isinstance(following, Exception):
            raise following
        return following

    return Stream(connections[0], connect, first_wait=0.001, **options)


def test_a_server_that_stops_is_connected_to_again_and_the_gap_told():
    refused = SourceError("refused")
    first, second = Connection([7.0, 7.04]), Connection([0.0, 0.04], SourceError("time-out"))
    source = stream(first, refused, Connection([]), refused, second, Connection([3.0]), give_up=0.5)
    frames = list(itertools.islice(source, 5))
    assert [frame.broken for frame in frames] == ["", "", "reconnected", "", "reconnected"]
    assert [frame.index for frame in frames] == list(range(5))
    assert np.diff([frame.time for frame in frames]).min() > 0 and frames[0].time == 0
    assert frames[1].time == pytest.approx(0.04)  # its own times within a connection
    assert frames[3].time - frames[2].time == pytest.approx(0.04)
    assert first.closed and second.closed
    with pytest.raises(SourceError, match=r"camera/1: broke off, and gave no frame for 0.5 s"):
        next(source)


def test_the_time_of_a_gap_passes():
    source = stream(Connection([0.0, 0.04]), Connection([0.0]))
    frames = [next(source), next(source)]
    time.sleep(0.1)
    assert next(source).time - frames[0].time > 0.1


def test_a_live_clock_that_leaps_is_set_right():
    source = stream(Connection([0.0, 0.04, 9e5, 9e5 + 0.04, 0.2, None, 0.24]))
    times = [next(source).time for _ in range(7)]
    assert np.diff(times).min() > 0 and times[-1] < LONG


def test_a_first_connection_without_a_frame_is_an_error():
    decoder = Connection([])
    with pytest.raises(SourceError, match="connected, but no frame came"):
        stream(decoder)
    assert decoder.closed


def test_a_stream_that_waits_for_its_server_is_closed_at_once():
    source = Newest(Stream(Connection([0.0]), lambda quick: Connection([]), first_wait=LONG))
    assert next(source).index == 0
    source.close()
    assert not source._thread.is_alive()


@pytest.mark.filterwarnings("ignore:.*ends after 2 of 500")
@pytest.mark.parametrize(
    "what, live, frames, kind, inner",
    [
        ("rtsp://u:p@host/1", None, None, Newest, "Stream"),
        ("rtsp://u:p@host/1", False, None, Prefetch, "Recorded"),
        ("http://host/camera.mjpg", None, None, Newest, "Stream"),
        ("https://host/film.mp4", None, 500, Prefetch, "Recorded"),
        ("0", None, None, Newest, "Stream"),
        (0, None, None, Newest, "Stream"),
        (0, False, None, Prefetch, "Recorded"),
        ("/dev/video3", None, None, Newest, "Stream"),
    ],
)
def test_what_is_live_and_what_has_an_end(what, live, frames, kind, inner, monkeypatch):
    def connect(*_, **__):
        decoder = Connection([0.0, 0.04])
        decoder.frames = frames
        return decoder

    monkeypatch.setattr(opening_module, "open_decoder", connect)
    monkeypatch.setattr(opening_module, "OpenCV", connect)
    with open_source(what, live=live) as source:
        assert type(source) is kind and type(source.source).__name__ == inner
        assert source.live == (kind is Newest) and next(source).size == (4, 6)
