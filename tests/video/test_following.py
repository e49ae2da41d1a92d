"""What is told of words that change, come back, hide, grow and turn; and of frames that come oddly."""

from __future__ import annotations

import signal
from dataclasses import replace

import numpy as np
import pytest
from clips import needed

from clip4str.core.errors import SourceError, UsageError
from clip4str.video.detect import Detections
from clip4str.video.events import Gap, Statistics, WordChanged, WordEnded, WordFound
from clip4str.video.frames import Frame
from clip4str.video.reader import VideoReader
from clip4str.video.sources.base import Source
from clip4str.video.vote import Lexicon

cv2 = needed("cv2", "video")
from boards import RATE, Board, Hidden, ended, events  # noqa: E402  (needs cv2)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("GATE 12", "GATE 13"),
        ("OPEN", "SHUT"),
        ("12:34", "12:35"),
        ("LEFT", "LOST"),
        ("MONDAY", "SUNDAY"),
        ("GATE A", "GATE B"),
        ("LINE 1A", "LINE 1C"),
        ("TRAIN", "TRAINS"),
        ("NOW", "KNOW"),
        ("10 AM", "10 PM"),
    ],
)
def test_a_display_that_shows_another_word_ends_the_one_and_begins_the_other(first, second):
    told = events(Board([first] * 40 + [second] * 40))
    assert [text for text, _, _ in ended(told)] == [first, second]
    one, two = (e for e in told if isinstance(e, WordEnded))
    assert one.start == 0 and two.end == pytest.approx(8.0)
    assert one.end == two.start and 4.0 <= one.end <= 6.1


@pytest.mark.parametrize("post", [40, 90])
@pytest.mark.parametrize("word", ["FUNCTION", "calling", "pig"])
def test_a_word_past_which_a_post_goes_is_one_word_all_the_time(word, post):
    board = Hidden(word, 110, post, pace=8)
    assert not board.whole(18) and board.whole(0) and board.whole(109)
    told = events(board)
    assert ended(told) == [(word, 0.0, 11.0)]
    (last,) = (e for e in told if isinstance(e, WordEnded))
    assert board.whole(round(last.time * RATE))  # what is shown of it is all of it


def test_a_word_that_comes_out_from_behind_a_post_is_read_whole():
    board = Hidden("STATION", 70, post=110, pace=5, first=0)
    board.plan = board.plan[31:]
    board.first -= 31
    assert not board.whole(0)
    told = [e for e in events(board) if isinstance(e, WordEnded)]
    assert [e.text for e in told] == ["STATION"]


@pytest.mark.parametrize(("first", "second"), [("DELAYED", "DELAY"), ("ONE", "ON")])
def test_a_display_that_shows_a_part_of_its_word_for_long_tells_the_part(first, second):
    told = events(Board([first] * 40 + [second] * 90))
    assert [e.text for e in told if isinstance(e, (WordFound, WordChanged))] == [first, second]


def test_a_long_word_replaced_by_a_short_one_ends():
    told = ended(events(Board(["DEPARTED"] * 30 + ["ON"] * 60)))
    assert [text for text, _, _ in told] == ["DEPARTED", "ON"]
    assert told[0][2] == 3.0 and told[1][2] == 9.0


def test_two_plates_in_one_place_are_two_words():
    told = ended(events(Board(["AB1234"] * 12 + [""] * 8 + ["AB1235"] * 12)))
    assert [text for text, _, _ in told] == ["AB1234", "AB1235"]


def test_a_word_that_comes_back_in_its_place_is_the_same_one():
    told = ended(events(Board(["HOTEL"] * 12 + [""] * 8 + ["HOTEL"] * 12)))
    assert told == [("HOTEL", 0.0, 3.2)]


def test_a_word_that_is_read_blank_once_all_of_it_is_seen_keeps_what_was_told():
    board = Board(["STATION"] * 20)
    whole = board.read
    board.read = lambda images, on_error="raise": [
        replace(word, text="" if board.now >= 10 else word.text) for word in whole(images)
    ]
    small = board.detect

    def grows(frame):
        found = small(frame)
        return found if frame.index >= 10 else found._replace(quads=found.quads[:, :, :] * [0.6, 1] + [16, 0])

    board.detect = grows
    told = [e for e in events(board) if isinstance(e, WordEnded)]
    assert [e.text for e in told] == ["STATION"] and told[0].confidence > 0


def test_a_word_up_the_wall_has_its_corners_as_it_is_read():
    told = [e for e in events(Board(["HOTEL"] * 6, turned=True)) if isinstance(e, WordEnded)]
    (word,) = told
    assert word.text == "HOTEL" and word.crop.shape[1] > word.crop.shape[0]
    along, down = word.quad[1] - word.quad[0], word.quad[3] - word.quad[0]
    assert along[1] < -80 and abs(along[0]) < 10  # to the right is up
    assert down[0] > 20 and abs(down[1]) < 10


def test_frames_in_one_buffer_that_is_written_over_are_followed():
    board = Board([""] * 20 + ["HOTEL"] * 20)
    buffer = np.zeros((180, 320), np.uint8)
    told, reader = [], VideoReader(board, board)
    for i in range(40):
        grey = cv2.cvtColor(board.pixels(i), cv2.COLOR_RGB2GRAY)
        buffer[:120], buffer[120:] = grey, 128
        told += reader.push(Frame(buffer, i / RATE, i, layout="nv12", duration=1 / RATE))
    assert ended(told + reader.finish()) == [("HOTEL", 2.0, 4.0)]


def test_ends_are_right_at_variable_rates_where_only_the_next_frame_tells():
    board = Board(["HOTEL"] * 10 + [""] * 10)
    times = np.cumsum([0.0, *np.tile([0.04, 0.2, 0.1], 7)])
    reader = VideoReader(board, board)
    told = [e for i in range(20) for e in reader.push(Frame(board.pixels(i), float(times[i]), i))] + reader.finish()
    assert ended(told) == [("HOTEL", 0.0, float(times[10]))]


def test_time_stamps_that_repeat_do_not_stretch_time():
    board = Board(["HOTEL"] * 20)
    frames = [replace(f, time=(f.index // 2) / 5, duration=None) for f in board.frames()]
    ((_, start, end),) = ended(events(board, frames))
    assert start == 0 and end.expected == pytest.approx(2.0, abs=0.25)


def test_time_that_is_set_back_is_a_gap_and_time_that_is_none_an_error():
    board = Board(["HOTEL"] * 20)
    frames = [f if f.index < 10 else replace(f, time=f.time - 500) for f in board.frames()]
    told = events(board, frames)
    assert [e.reason for e in told if isinstance(e, Gap)] == ["time stepped back"]
    assert ended(told) == [("HOTEL", 0.0, 1.0), ("HOTEL", 1.0, 2.0)]
    with pytest.raises(Exception, match="no numbers"):
        events(board, [replace(frames[0], time=float("nan"))])


def test_a_gap_goes_from_the_last_frame_to_the_next_and_does_not_count_as_one():
    board = Board(["HOTEL"] * 20)
    frames = [replace(f, duration=None) for f in board.frames()]
    late = [f if f.index < 10 else replace(f, time=f.time + 30, broken="reconnected" * (f.index == 10)) for f in frames]
    told = events(board, late)
    assert [(g.reason, pytest.approx(g.start), pytest.approx(g.end)) for g in told if isinstance(g, Gap)] == [
        ("reconnected", 1.0, 31.0)
    ]
    assert ended(told) == [("HOTEL", 0.0, 1.0), ("HOTEL", 31.0, 32.0)]


def test_damaged_frames_in_a_row_are_one_gap():
    board = Board(["HOTEL"] * 20)
    told = events(board, [replace(f, damaged=f.index in (4, 5, 6)) for f in board.frames()])
    assert [(g.reason, pytest.approx(g.start), pytest.approx(g.end)) for g in told if isinstance(g, Gap)] == [
        ("damaged", 0.4, 0.7)
    ]


def test_a_file_that_stalls_does_not_double_its_words():
    board = Board(["HOTEL"] * 8)

    class Stalls(Source):
        def __init__(self):
            super().__init__()
            self.left, self.pauses = board.frames(), 3

        def wait(self, timeout=None):
            self.pauses -= len(self.left) == 4
            return not (len(self.left) == 4 and self.pauses >= 0)

        def __next__(self):
            if not self.left:
                raise StopIteration
            return self.left.pop(0)

    reader = VideoReader(board, board, revive=0.0)
    assert ended(reader.run(Stalls())) == [("HOTEL", 0.0, 0.8)]


def test_what_was_seen_is_told_when_a_source_a_detector_or_the_user_ends_it():
    for error in (SourceError("gone"), RuntimeError("detector"), KeyboardInterrupt()):
        board = Board(["HOTEL"] * 12)

        def frames(board=board, error=error):
            yield from board.frames()
            raise error

        reader, told = VideoReader(board, board), []
        with pytest.raises(type(error)):
            for event in reader.run(frames()):
                told.append(event)
        assert ended(told) == [("HOTEL", 0.0, 1.2)]


def test_ctrl_c_tells_what_was_seen_so_far():
    from clip4str.video import open_source, video_command

    board, told = Board(["HOTEL"] * 12), []

    class Bar:
        def set_postfix_str(self, *_, **__): ...

        def update(self):
            board.now = min(board.now + 1, 11)
            if len(seen) == 7:
                signal.raise_signal(signal.SIGINT)
            seen.append(1)

    class Outputs:
        write = told.append

        def flush(self): ...

        def show(self, *_): ...

    seen = []
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            video_command.run(VideoReader(board, board), [open_source(board.frames(), ahead=0)], Outputs(), Bar())
    finally:
        signal.signal(signal.SIGINT, before)
    assert ended(told) == [("HOTEL", 0.0, 0.8)] and isinstance(told[-1], Statistics)


def test_a_crop_for_which_the_network_has_no_numbers_is_no_vote():
    board = Board(["HOTEL"] * 20)
    read = board.read
    board.read = lambda images, on_error="raise": [None if board.now < 6 else word for word in read(images)]
    assert ended(events(board)) == [("HOTEL", 0.0, 2.0)]


def test_a_settled_word_costs_a_read_every_two_seconds():
    board = Board(["HOTEL"] * 200)
    told = events(board)
    assert ended(told) == [("HOTEL", 0.0, 20.0)] and board.asked <= 2 + 10 + 1
    assert events(Board(["HOTEL"] * 20), read_all=True)[-1].reads == 20


def test_a_word_that_looks_otherwise_and_reads_the_same_is_read_more_and_more_seldom():
    """A light that blinks on two letters of it is no new word each time."""
    board = Board(["HOTEL"] * 240)
    dark = board.pixels

    def blinking(i):
        pixels = dark(i)
        if i // 10 % 2:
            pixels[:, 60:85] = 255 - (255 - pixels[:, 60:85]) // 4
        return pixels

    board.pixels = blinking
    at_30 = [replace(frame, time=frame.index / 30, duration=1 / 30) for frame in board.frames()]
    assert ended(events(board, at_30)) == [("HOTEL", 0.0, 8.0)]
    assert board.asked <= 9  # after 12, 24, 48 frames, then every two seconds; each time would be 19


def test_where_time_is_short_words_are_read_less_often_and_first_reads_do_not_wait(monkeypatch):
    """A frame that takes 9 of its 10 milliseconds; a word that never settles, and one that comes later."""

    def read_with(milliseconds):
        board = Board(["HOTEL"] * 60 + [""] * 20 + ["MUSEUM"] * 40, sure=0.45)
        reader, told = VideoReader(board, board, budget=10.0), []
        for frame in board.frames():
            board.now = frame.index
            told += reader.push(frame)
            reader._pushed.schedule.other_time = milliseconds
        return board.asked, {text: start for text, start, _ in ended(told + reader.finish())}

    (often, words), (seldom, later) = read_with(1.0), read_with(9.0)
    assert words == later == {"HOTEL": 0.0, "MUSEUM": 8.0}
    assert seldom < 0.6 * often


def test_statistics_come_every_minute():
    board = Board(["HOTEL"] * 20)
    told = events(board, [replace(f, time=f.index * 10.0, duration=10.0) for f in board.frames()])
    assert [e.ended for e in told if isinstance(e, Statistics)] == [False, False, False, True]


def test_what_a_live_source_drops_is_told_every_minute():
    board = Board(["HOTEL"] * 20)

    class Drops(Source):
        live, dropped, left = False, 0, [replace(f, time=f.index * 10.0, duration=10.0) for f in board.frames()]

        def __next__(self):
            if not self.left:
                raise StopIteration
            self.dropped += 3
            return self.left.pop(0)

    reader = VideoReader(board, board)
    told = [(e.dropped, e.ended) for e in reader.run(Drops()) if isinstance(e, Statistics)]
    assert told == [(21, False), (39, False), (57, False), (60, True)]
    assert [statistics.dropped for statistics in reader.statistics()] == [60]


@pytest.mark.parametrize(
    "found",
    [None, [], ([[1, 2]], [1], ()), Detections(np.zeros((2, 8), np.float32), np.ones(2, np.float32)),
     Detections(np.zeros((2, 4, 2), np.float32), np.ones(1, np.float32)),
     Detections(np.zeros((2, 4, 2), np.float32), np.ones(2, np.float32), ("plate",))],
)  # fmt: skip
def test_what_a_detector_must_not_give_is_one_line_that_names_it(found):
    board = Board(["HOTEL"] * 3)
    board.detect = lambda frame: found
    with pytest.raises(UsageError, match=r"Board\.detect gave") as error:
        events(board)
    assert "\n" not in str(error.value)


def test_quads_that_cannot_be_cut_out_are_passed_over():
    board = Board(["HOTEL"] * 5)
    good = board.detect
    outside, mirrored = [[-90, -90], [-50, -90], [-50, -70], [-90, -70]], [[10, 10], [10, 40], [60, 40], [60, 10]]
    bad = np.array([[[np.nan] * 2] * 4, [[np.inf] * 2] * 4, [[5, 5]] * 4, outside, mirrored], np.float32)
    board.detect = lambda frame: Detections(np.concatenate([bad, good(frame).quads]), np.ones(6, np.float32))
    assert [text for text, _, _ in ended(events(board))] == ["HOTEL"]


@pytest.mark.parametrize("how", [{"budget": 0}, {"region": (1, 2, 3)}, {"detect_every": 2.5}, {"revive": float("nan")}])
def test_settings_that_cannot_be_are_refused(how):
    board = Board(["HOTEL"])
    with pytest.raises(UsageError):
        VideoReader(board, board, **how)


def test_short_words_are_not_bent_to_the_lexicon():
    lexicon = Lexicon(["go", "x", "station"])
    assert [lexicon.nearest(word) for word in ("no", "7", "GO", "stztion")] == [None, None, "go", "station"]


def test_labels_of_the_detector_come_with_the_words():
    board = Board(["AB123"] * 5)
    detect = board.detect
    board.detect = lambda frame: detect(frame)._replace(labels=("plate",))
    told = events(board)
    assert {e.label for e in told if isinstance(e, (WordFound, WordEnded))} == {"plate"}


def test_a_word_that_is_never_sure_is_left_out_unless_asked_for():
    for how, words, unsure in (({}, [], 1), ({"least": 0.0}, ["HOTEL"], 0)):
        told = events(Board(["HOTEL"] * 30, sure=0.1), **how)
        assert [e.text for e in told if isinstance(e, WordEnded)] == words
        assert told[-1].unsure == unsure and told[-1].ended
    with pytest.raises(UsageError, match="least is 0 to 1"):
        VideoReader(Board(["A"]), Board(["A"]), least=2)


def test_a_word_that_is_never_whole_in_the_frame_is_told_as_partial():
    whole, cut = (
        [e for e in events(Board(["HOTEL"] * 20, at=at)) if isinstance(e, WordEnded)] for at in ((40, 40), (250, 40))
    )
    assert [(e.text, e.partial) for e in whole + cut] == [("HOTEL", False), ("HOTEL", True)]


def test_what_comes_out_from_behind_something_is_not_told_as_another_word():
    """Its first letters read like one."""
    board = Hidden("HOTEL", 80, post=200, pace=12)
    told = events(board, [replace(frame, time=frame.index / 30, duration=1 / 30) for frame in board.frames()])
    assert [e.text for e in told if isinstance(e, WordFound)] == ["HOTEL"]
    assert [e.text for e in told if isinstance(e, WordEnded)] == ["HOTEL"]
