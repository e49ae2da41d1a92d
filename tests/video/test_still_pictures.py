"""Frames that are the very same as the one before: some come twice, some stand for long."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from clips import needed

from clip4str.video.events import WordEnded, WordFound
from clip4str.video.frames import Frame
from clip4str.video.reader import VideoReader

cv2 = needed("cv2", "video")
from boards import RATE, Board, ended, events  # noqa: E402  (needs cv2)


class ReadWrongOnce(Board):
    def read(self, images, on_error="raise"):
        first, words = not self.asked, super().read(images, on_error)
        return [replace(word, text="H0TEI", confidence=0.6) for word in words] if first else words


@pytest.mark.parametrize("copies", [1, 2, 3])
def test_words_of_frames_that_come_twice_are_read_again(copies):
    """25 frames a second in a file of 50."""
    board, told = ReadWrongOnce(["HOTEL"] * 30), []
    reader = VideoReader(board, board)
    for number in range(30 * copies):
        board.now = number // copies
        step = 1 / (RATE * copies)
        told += reader.push(Frame(board.pixels(board.now), number * step, board.now, duration=step))
    told += reader.finish()
    assert [e.text for e in told if isinstance(e, WordEnded)] == ["HOTEL"] and board.asked >= 3


class Slides(Board):
    """Another ground, twice as bright, with the second word; still=True: frames of a slide are the very same."""

    def __init__(self, plan, still):
        super().__init__(plan)
        self.still = still

    def pixels(self, i):
        begun = max(k for k in range(i + 1) if k == 0 or self.plan[k] != self.plan[k - 1])
        small = np.random.default_rng(begun + 5).integers(0, 80 if begun else 250, (15, 40, 3), np.uint8)
        self.ground = cv2.resize(small, self.size[::-1], interpolation=cv2.INTER_NEAREST)
        return super().pixels(begun if self.still else i)


@pytest.mark.parametrize("still", [False, True])
def test_another_word_in_a_lost_ones_place_is_told_within_a_second(still):
    board = Slides(["LONDON"] * 20 + ["BERLIN"] * 60, still)
    told = events(board)
    found = {e.text: e.time for e in told if isinstance(e, WordFound)}
    assert found["LONDON"] <= 0.2 and 2.0 <= found["BERLIN"] <= 2.9
    assert [e.text for e in told if isinstance(e, WordEnded)] == ["LONDON", "BERLIN"]
    assert next(e.time for e in told if isinstance(e, WordEnded) and e.text == "LONDON") < 4.5


@pytest.mark.parametrize("sure", [0.95, 0.75])
def test_another_word_in_a_still_picture_is_another_word(sure):
    """A title that changes on a screen, without a cut: each picture was read but once or twice."""
    board, told = Board(["LONDON"], sure=sure), []
    first, second = board.pixels(0), Board(["BERLIN"]).pixels(0)
    reader = VideoReader(board, board)
    for number in range(80):
        board.plan[0] = "LONDON" if number < 20 else "BERLIN"
        told += reader.push(Frame(first if number < 20 else second, number / RATE, 0, duration=1 / RATE))
    told += reader.finish()
    assert ended(told) == [("LONDON", 0.0, 2.0), ("BERLIN", 2.0, 8.0)]
    assert board.asked < 20


def test_a_word_that_comes_between_two_searches_and_stands_still_is_searched():
    """A window that opens on a screen, of which every further frame is the very same."""
    board = Board([""] * 60)
    told, reader = [], VideoReader(board, board)
    for number in range(60):
        board.plan[:] = ["" if number < 5 else "HOTEL"] * 60
        board.now = number
        told += reader.push(Frame(board.pixels(0), number / RATE, number, duration=1 / RATE))
    told += reader.finish()
    assert [(e.text, e.start, e.end) for e in told if isinstance(e, WordEnded)] == [("HOTEL", 0.5, 6.0)]
    assert next(e.time for e in told if isinstance(e, WordFound)) < 1.0


@pytest.mark.parametrize("at", range(20, 40, 3))
def test_a_display_that_changes_and_then_stands_still_is_read_again(at):
    """Whenever that is after it was read last."""
    board, told = Board(["HOTEL"] * at + ["EXIT 7"] * 50), []
    still, reader = board.pixels(at), VideoReader(board, board)
    for number in range(len(board.plan)):
        board.now = number
        pixels = board.pixels(number) if number < at else still
        told += reader.push(Frame(pixels, number / RATE, number, duration=1 / RATE))
    told += reader.finish()
    assert ended(told) == [("HOTEL", 0.0, at / RATE), ("EXIT 7", at / RATE, at / RATE + 5.0)]
