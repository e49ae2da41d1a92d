"""A slow output does not hold up the reader, and loses no word."""

import threading

import numpy as np
import pytest

from clip4str.core.errors import UsageError
from clip4str.video.events import Statistics, WordChanged, WordEnded
from clip4str.video.outputs import Queued
from clip4str.video.outputs.queue import FRAMES

QUAD = np.zeros((4, 2), np.float32)


def ended(track):
    return WordEnded(0, track, "A", 1.0, 0.0, 1.0, 0.0, QUAD, 1, 1)


class Slow:
    """Writes an event each time it is let."""

    def __init__(self, error_at=None):
        self.events, self.closed, self.error_at = [], 0, error_at
        self.let, self.busy = threading.Semaphore(0), threading.Event()

    def write(self, event):
        self.busy.set()
        assert self.let.acquire(timeout=20)
        if len(self.events) == self.error_at:
            raise UsageError("the disk is full")
        self.events.append(event)

    def close(self):
        self.closed += 1


def test_what_passes_is_dropped_and_counted_and_no_word_is_lost():
    slow = Slow()
    sink = Queued(slow, most=3)
    sink.write(ended(0))
    assert slow.busy.wait(20)  # that one is being written; three may wait
    for track in (1, 2, 3):
        sink.write(ended(track))
    sink.write(WordChanged(0, 1, 0.0, "B", "A", 1.0, QUAD))
    sink.write(Statistics(0))
    assert sink.dropped == 2
    last = threading.Thread(target=lambda: (sink.write(Statistics(0, ended=True)), sink.write(ended(4))))
    last.start()
    last.join(0.05)
    assert last.is_alive()  # waits, as neither must be lost
    slow.let.release(10)
    last.join(20)
    sink.close()
    assert [event.track for event in slow.events if isinstance(event, WordEnded)] == [0, 1, 2, 3, 4]
    assert [event.ended for event in slow.events if isinstance(event, Statistics)] == [True]
    assert slow.closed == 1


def test_what_the_output_raises_reaches_the_reader():
    slow = Slow(error_at=1)
    sink = Queued(slow, most=1)
    slow.let.release(2)
    with pytest.raises(UsageError, match="the disk is full"):
        for track in range(1000):
            sink.write(ended(track))
    with pytest.raises(UsageError, match="the disk is full"):
        sink.close()
    assert len(slow.events) == 1 and slow.closed == 1


def test_closing_waits_until_all_is_written():
    slow = Slow()
    sink = Queued(slow)
    for track in range(5):
        sink.write(ended(track))
    slow.let.release(5)
    sink.close()
    sink.close()
    assert len(slow.events) == 5 and slow.closed == 1


def test_frames_are_drawn_by_the_thread_and_only_a_few_wait():
    class Drawing(Slow):
        def show(self, frame, words):
            self.write((frame, words))

    slow = Drawing()
    sink = Queued(slow)
    reader = threading.Thread(target=lambda: [sink.show(number, []) for number in range(FRAMES + 3)])
    reader.start()
    assert slow.busy.wait(20)
    reader.join(0.05)
    assert reader.is_alive() and sink._frames == FRAMES
    slow.let.release(50)
    reader.join(20)
    sink.close()
    assert slow.events == [(number, []) for number in range(FRAMES + 3)]
