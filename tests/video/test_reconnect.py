"""When a broken stream is tried again: on a clock that stands still but for waits."""

import random
import socket
import threading
import time
from contextlib import ExitStack

import numpy as np
import pytest
from boards import Board, events

from clip4str.core.errors import SourceError
from clip4str.video.events import Gap, WordEnded
from clip4str.video.frames import Frame
from clip4str.video.sources import opencv as opencv_module
from clip4str.video.sources import ports as ports_module
from clip4str.video.sources import streams as streams_module
from clip4str.video.sources.base import Picture, Sizeless
from clip4str.video.sources.ports import answering
from clip4str.video.sources.streams import ASKED, BLIND, FIRST_WAIT, LONGEST_WAIT, STEADY, Stream

PIXELS = np.zeros((4, 6, 3), np.uint8)


class World:
    """A server that is there from `back` on, `silent` or refusing before; how long it then says no; and the time."""

    name, rate, frames, dropped = "rtsp://camera/1", 25.0, None, 0

    def __init__(self, monkeypatch, back=0.0, silent=False, refuses=0, lasted=60.0, port=True, give_up=None, hangs=0.0):
        self.now, self.back, self.silent, self.refuses, self.lasted = 0.0, 10.0**9, silent, refuses, lasted
        self.quick, self.error = [], SourceError
        self.tries, self.asked, self.closed, self.hangs = [], [], 0, hangs  # seconds until nobody has answered
        monkeypatch.setattr(streams_module.time, "monotonic", lambda: self.now)
        self.stream = Stream(self, self.connect, give_up, self.answers if port else None)
        monkeypatch.setattr(self.stream.stopping, "wait", self.pass_by)
        next(self.stream)
        self.back = lasted + back

    def pass_by(self, seconds):
        self.now += seconds
        return False

    def answers(self):
        self.asked.append(self.now)
        if self.now >= self.back or self.hangs:
            return True
        self.now += ports_module.ANSWER if self.silent else 0
        return False

    def connect(self, quick):
        self.quick.append(quick)
        self.tries.append(self.now)
        assert len(self.tries) < 20_000
        if self.now < self.back < self.now + self.hangs:
            self.now = self.back  # what it had not answered it answers now
        self.now += self.hangs if self.now < self.back else 0
        if self.now < self.back or len(self.tries) <= self.refuses:
            raise self.error("rtsp://camera/1: no")
        return self

    def pictures(self):
        yield Picture(PIXELS, None)
        self.now += self.lasted
        yield Picture(PIXELS, None)

    def close(self):
        self.closed += 1

    def broken(self):
        """The first frame after the connection breaks."""
        next(self.stream)
        return next(self.stream)


@pytest.mark.parametrize("silent", [False, True], ids=["refused", "silent"])
@pytest.mark.parametrize("away", [0.1, 1, 3, 40, 7200, 90_001.3])
def test_the_end_of_an_outage_is_noticed_as_soon_after_a_day_as_after_a_second(monkeypatch, silent, away):
    world = World(monkeypatch, away, silent)
    assert world.broken().broken == "reconnected"
    late = world.tries[-1] - world.back
    assert len(world.tries) <= 1 + away / BLIND  # hardly anybody is connected to before there is somebody
    assert np.diff([world.lasted, *world.tries]).max() < BLIND + 2  # but for one that cannot answer in time
    assert 0 <= late <= (ports_module.ANSWER if silent else max(ASKED, FIRST_WAIT - away))
    assert all(wait >= ASKED * 0.66 for wait in np.diff(world.asked)[:-1])


def test_a_stream_that_ends_is_tried_again_at_once_and_one_that_is_refused_less_and_less_often(monkeypatch):
    world = World(monkeypatch, 0.0, refuses=12)
    world.broken()
    waits = np.diff([world.lasted, *world.tries])
    most = [min(FIRST_WAIT * 2**n, LONGEST_WAIT) for n in range(13)]
    assert (waits <= np.add(most, 1e-9)).all() and (waits >= np.multiply(most, 0.66)).all()
    assert waits.max() > 0.66 * LONGEST_WAIT


def test_a_stream_that_does_not_tell_its_size_at_once_is_looked_at_longer(monkeypatch):
    world = World(monkeypatch, 0.0, refuses=3)
    world.broken()
    assert world.quick == [True] * 4  # refused is refused
    world = World(monkeypatch, 0.0, refuses=1)
    world.error = Sizeless
    world.broken()
    assert world.quick == [True, False]


def test_connections_that_break_at_once_are_made_less_and_less_often_and_steady_ones_soon(monkeypatch):
    hasty = World(monkeypatch, lasted=STEADY / 10)
    for _ in range(40):
        next(hasty.stream)
    assert np.diff(hasty.tries).max() > 0.66 * LONGEST_WAIT
    steady = World(monkeypatch, lasted=STEADY * 1.1)
    for _ in range(40):
        next(steady.stream)
    assert np.diff(steady.tries).max() <= STEADY * 1.1 + FIRST_WAIT


def test_a_port_that_was_closed_ends_a_long_wait(monkeypatch):
    world = World(monkeypatch, lasted=STEADY / 10)
    for _ in range(20):
        next(world.stream)
    world.back = world.now + STEADY / 10 + 100  # its next end is one of the whole server
    next(world.stream)
    assert world.now - world.back <= ASKED
    world.refuses = len(world.tries) + 1
    next(world.stream), next(world.stream)
    assert world.tries[-1] - world.tries[-2] <= 2 * FIRST_WAIT  # and the waits have begun anew


@pytest.mark.parametrize("away", [1, 7, 40, 7200])
def test_a_server_that_hangs_is_noticed_to_be_back_however_long_that_was(monkeypatch, away):
    world = World(monkeypatch, away, hangs=3.0)
    world.broken()
    assert max(world.tries[-1], world.back) - world.back <= FIRST_WAIT
    assert len(world.tries) <= away / 3 + 2


def test_where_there_is_no_port_to_ask_waits_grow_to_half_a_minute(monkeypatch):
    world = World(monkeypatch, 600.0, port=False)
    world.broken()
    waits = np.diff(world.tries)
    assert not world.asked and waits.max() <= LONGEST_WAIT and waits[-1] > 0.66 * LONGEST_WAIT


@pytest.mark.parametrize("how", [{"silent": True}, {"silent": False}, {"port": False}])
def test_a_source_is_given_up_when_it_should_be(monkeypatch, how):
    world = World(monkeypatch, 10.0**6, give_up=20.0, **how)
    next(world.stream)
    with pytest.raises(SourceError, match=r"rtsp://camera/1: broke off, and gave no frame for 20 s"):
        next(world.stream)
    assert 80 <= world.now <= 80 + ports_module.ANSWER


def test_clients_of_one_server_do_not_come_back_all_at_once(monkeypatch):
    tried = set()
    for seed in range(20):
        random.seed(seed)
        world = World(monkeypatch, 10.0)
        world.broken()
        tried.add(round(world.tries[0], 3))
    assert len(tried) > 15 and max(tried) - min(tried) > ASKED / 4


def test_what_piled_up_while_connecting_is_left_out_and_counted(monkeypatch):
    now = [0.0]
    monkeypatch.setattr(streams_module.time, "monotonic", lambda: now[0])

    class Late:
        name, rate, frames, dropped = "rtsp://camera/1", 10.0, None, 0

        def pictures(self):
            now[0] += 2.0  # in which FFmpeg looked at 20 frames
            for number in range(40):
                now[0] += 0.1 if number >= 20 else 0.001
                yield Picture(PIXELS, number / 10)

        def close(self):
            pass

    stream = Stream(Late(), lambda quick: Late(), began=0.0)
    frames = [next(stream) for _ in range(10)]
    assert stream.dropped == 20 and [round(frame.time, 6) for frame in frames] == [n / 10 for n in range(10)]


def test_a_gap_does_not_end_before_it_begins_and_no_word_reaches_into_it():
    board, times = Board(["STATION"] * 8), [0.0, 0.3, 0.6, 0.9, 0.95, 1.25, 1.55, 1.85]
    frames = [
        Frame(board.pixels(i), when, i, broken="reconnected" * (when == 0.95)) for i, when in enumerate(times)
    ]  # the one before the gap was shown for less time than those before it
    told = events(board, frames)
    (gap,) = [event for event in told if isinstance(event, Gap)]
    assert gap.start == gap.end == 0.95
    assert [(word.start, round(word.end, 6)) for word in told if isinstance(word, WordEnded)] == [
        (0, 0.95),
        (0.95, 2.15),
    ]


def test_a_port_is_asked_where_there_is_one():
    listening = socket.create_server(("127.0.0.1", 0))
    host = f"127.0.0.1:{listening.getsockname()[1]}"
    for known in (f"rtsp://me:pass@{host}/1", f"http://{host}/a.mjpg", f"tcp://{host}"):
        assert answering(known)()
    for none in (f"udp://{host}", f"srt://{host}", "tcp://nowhere", "rtsp:///1"):
        assert answering(none) is None
    asks = answering(f"rtsp://{host}/1")
    listening.close()
    assert not asks() and answering(f"rtsp://{host}/1") is None


def test_a_host_that_drops_packets_is_not_waited_for_long():
    with ExitStack() as held:
        listening = held.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        asks = answering(f"rtsp://127.0.0.1:{listening.getsockname()[1]}")
        assert asks is not None
        for _ in range(8):  # connections that nobody accepts, until the next ones get no answer at all
            waiting = held.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(listening.getsockname())
        began = time.monotonic()
        assert not asks()
        assert time.monotonic() - began < 10 * ports_module.ANSWER


def test_openings_that_want_other_options_wait_for_each_other(monkeypatch):
    monkeypatch.setenv(opencv_module.OPTIONS, "")
    options, seen = opencv_module._Options(), []
    inside, done = threading.Event(), threading.Event()

    def opening(quick, wait):
        with options.of(quick):
            inside.set()
            if wait:
                done.wait(20)
            seen.append((quick, opencv_module.os.environ[opencv_module.OPTIONS]))

    threads = [threading.Thread(target=opening, args=(True, True))]
    threads[0].start()
    assert inside.wait(20)
    opening(True, False)  # the same: together
    threads.append(threading.Thread(target=opening, args=(False, False)))
    threads[1].start()
    threads[1].join(0.05)
    assert threads[1].is_alive() and len(seen) == 1
    done.set()
    for thread in threads:
        thread.join(20)
    assert seen == [(True, opencv_module.QUICK)] * 2 + [(False, opencv_module.USUAL)]


def test_ffmpeg_options_of_the_user_are_left_alone(monkeypatch):
    monkeypatch.setenv(opencv_module.OPTIONS, "rtsp_transport;udp")
    with opencv_module._Options().of(True):
        assert opencv_module.os.environ[opencv_module.OPTIONS] == "rtsp_transport;udp"
