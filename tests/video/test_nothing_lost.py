"""What ends a run, fails in it or goes on for months must cost no word and keep nothing: many words at once, slow
cameras, several sources and outputs."""

from __future__ import annotations

import gc
import json
import time
from types import SimpleNamespace

import numpy as np
import pytest
from clips import needed

from clip4str.core.errors import ImageError, SourceError, UsageError
from clip4str.runtime import Word
from clip4str.video.detect import Detections
from clip4str.video.events import Statistics, WordEnded, WordFound
from clip4str.video.frames import Frame
from clip4str.video.reader import VideoReader
from clip4str.video.reading import Reading
from clip4str.video.sources.base import Source
from clip4str.video.track import Track
from clip4str.video.vote import MOST_SPELLINGS, MOST_WORDS, TrackVote

cv2 = needed("cv2", "video")
from clip4str.video import stream as stream_module  # noqa: E402
from clip4str.video import video_command  # noqa: E402
from clip4str.video.outputs import Jsonl, Queued  # noqa: E402

RANDOM = np.random.default_rng(0)
WALL = np.kron(RANDOM.integers(0, 255, (45, 80)), np.ones((8, 8))).astype(np.uint8)
NOISE = [np.repeat(RANDOM.integers(0, 255, (360, 640, 1), np.uint8), 3, 2) for _ in range(40)]


class Reads:
    def __init__(self, text=lambda n: ("WORD", 0.95)):
        self.text, self.count = text, 0

    def read(self, images, on_error="raise"):
        found = [self.text(self.count + n) for n in range(len(images))]
        self.count += len(images)
        return [Word(text, confidence, ()) for text, confidence in found]


class Finds:
    """quads: of the n-th search, from 1, and its frame."""

    def __init__(self, quads):
        self.quads, self.count = quads, 0

    def detect(self, frame):
        self.count += 1
        quads = np.array(self.quads(self.count, frame), np.float32).reshape(-1, 4, 2)
        return Detections(quads, np.ones(len(quads), np.float32), ())


class Given(Source):
    def __init__(self, name, frames, error=None):
        super().__init__()
        self.name, self.left, self.error = name, list(frames), error

    def __next__(self):
        if self.left:
            return self.left.pop(0)
        raise self.error or StopIteration


def quad(x, y, w=80, h=24):
    return [[x, y], [x + w, y], [x + w, y + h], [x, y + h]]


def wall(i, rate=25.0):
    grey = WALL.copy()
    grey[0, i % 600] = i % 256  # never the very same
    return Frame(np.repeat(grey[:, :, None], 3, 2), i / rate, i)


def of(kind, told):
    return [event for event in told if isinstance(event, kind)]


def twelve_words_that_end_at_once():
    quads = [quad(50 + 130 * k, 50 + 90 * j) for k in range(4) for j in range(3)]
    reader = VideoReader(Reads(), Finds(lambda n, _: quads if n < 2 else []), revive=0.2)
    frames = [wall(i) if i < 20 else Frame(NOISE[i - 20], i / 25, i) for i in range(60)]
    return reader, Given("a", frames)


class Bar:
    def set_postfix_str(self, *_, **__): ...

    def update(self): ...


def outputs(*sinks):
    made = video_command.Outputs.__new__(video_command.Outputs)
    made.sinks = [Queued(sink) for sink in sinks]
    made.overlay = made.view = made.metrics = None
    made.names, made.summary = ["a"], False
    made._owed, made._failed = video_command.deque(), []
    return made


class Sink:
    def __init__(self, fail=lambda event: None):
        self.told, self.fail = [], fail

    def write(self, event):
        self.fail(event)
        self.told.append(event)

    def close(self): ...


@pytest.mark.parametrize("at", [1, 3, 12])
def test_an_interrupt_between_two_of_many_ends_loses_none(at):
    reader, source = twelve_words_that_end_at_once()
    events, told = reader.run(source), []
    while True:
        try:
            event = events.throw(KeyboardInterrupt()) if len(of(WordEnded, told)) == at and at else next(events)
        except KeyboardInterrupt:
            break
        if len(of(WordEnded, told)) == at:
            at = 0
        told.append(event)
    assert len(of(WordFound, told)) == 12
    assert sorted(event.track for event in of(WordEnded, told)) == list(range(1, 13))
    assert of(Statistics, told)[-1].ended


def test_an_interrupt_while_an_output_is_written_loses_nothing_for_those_behind_it(monkeypatch):
    reader, source = twelve_words_that_end_at_once()
    first, second, left = Sink(), Sink(), [5]
    made = outputs(first, second)
    write = made.sinks[0].write

    def interrupted(event):
        left[0] -= isinstance(event, WordEnded)
        if not left[0] and isinstance(event, WordEnded):
            left[0] = -1000
            raise KeyboardInterrupt
        write(event)

    monkeypatch.setattr(made.sinks[0], "write", interrupted)
    with pytest.raises(KeyboardInterrupt):
        video_command.run(reader, [source], made, Bar())
    made.close()
    for sink in (first, second):
        assert sorted(event.track for event in of(WordEnded, sink.told)) == list(range(1, 13))


def test_an_output_that_fails_costs_the_others_nothing_and_is_told(capsys):
    def full(event):
        if isinstance(event, WordEnded):
            raise UsageError("words.jsonl: No space left on device")

    reader, source = twelve_words_that_end_at_once()
    good = Sink()
    made = outputs(Sink(full), good)
    video_command.run(reader, [source], made, Bar())
    with pytest.raises(UsageError, match="No space left"):
        made.close()
    assert len(of(WordEnded, good.told)) == 12 and of(Statistics, good.told)[-1].ended
    assert capsys.readouterr().err.count("No space left on device (the other outputs go on)") == 1


@pytest.mark.parametrize("step", [1.0, 2.0, 4.0])
def test_a_camera_of_a_frame_in_seconds_shows_one_word(step, monkeypatch):
    """On a clock of the test's own, asked ten times a second."""
    now = [0.0]
    monkeypatch.setattr(
        stream_module, "time", SimpleNamespace(monotonic=lambda: now[0], perf_counter=time.perf_counter)
    )
    reader = VideoReader(Reads(), Finds(lambda *_: [quad(200, 100)]))
    stream, told, shown = reader._stream(0, int, None), [], 0
    reading = Reading(reader.recognizer)
    for i in range(40):
        now[0] = i * step
        reading.at_once([(stream, stream.look(wall(i, 1 / step)))])
        shown += len(stream.shown())
        told += stream.events()
        for k in range(1, round(10 * step)):
            now[0] = i * step + k / 10
            told += stream.idle()
    told += stream.finish()
    assert shown >= 39 and len(of(WordEnded, told)) <= 2  # of the first frame nobody knows that others come as late
    assert of(WordEnded, told)[-1].end == pytest.approx(40 * step)


def test_votes_of_what_is_read_otherwise_each_time_are_bounded_and_keep_their_weight():
    vote = TrackVote()
    for _ in range(40):
        vote.add("HOTEL", 0.9)
    for n in range(5000):
        vote.add(f"x{n}", 0.5)
    assert len(vote._words) <= MOST_WORDS
    assert vote.result.text == "HOTEL" and vote.total == pytest.approx(40 * 0.81 + 5000 * 0.25)
    other = TrackVote()
    for n in range(200):
        other.add(f"y{n}", 0.5)
    vote.join(other)
    assert len(vote._words) <= MOST_WORDS and vote.total == pytest.approx(40 * 0.81 + 5200 * 0.25)


def test_spellings_of_one_word_are_bounded():
    vote = TrackVote()
    for n in range(2000):
        either = "".join(RANDOM.choice(list(pair)) for pair in zip("grand hotel", "GRAND HOTEL"))
        vote.add(either if n % 4 else "Grand Hotel", 0.5)
    assert max(len(each.spellings) for each in vote._words.values()) <= MOST_SPELLINGS
    assert vote.result.text == "Grand Hotel" and vote.total == pytest.approx(2000 * 0.25)


def test_what_comes_and_goes_all_day_keeps_no_track_that_has_ended():
    """Read otherwise each time, so that each time it may be the one before."""
    finder = Finds(lambda n, _: [quad(200, 100)] if n % 10 < 5 else [])
    reader = VideoReader(Reads(lambda n: (f"x{n}", 0.3)), finder, detect_every=1)
    alive = []
    for i in range(400):
        reader.push(wall(i, 5.0))
        if i % 200 == 199:
            gc.collect()
            alive.append(sum(type(each) is Track for each in gc.get_objects()))  # isinstance asks dead proxies, too
    assert alive[1] <= alive[0] <= 8


@pytest.mark.parametrize(("frames", "told", "unsure"), [(50, ["SALE"], 0), (1, [], 1)])
def test_a_word_of_a_still_picture_is_told_or_counted(frames, told, unsure):
    """Half sure. The very same picture is not searched again; of one frame nothing confirms it."""
    reader = VideoReader(Reads(lambda n: ("SALE", 0.5)), Finds(lambda *_: [quad(200, 100)]))
    still, events = wall(0), []
    for i in range(frames):
        events += reader.push(Frame(still.pixels, i / 25, i))
    events += reader.finish()
    assert [event.text for event in of(WordEnded, events)] == told
    assert of(Statistics, events)[-1].unsure == unsure


def test_a_source_that_fails_is_told_at_once_and_the_others_go_on():
    reader = VideoReader(Reads(), Finds(lambda *_: [quad(200, 100)]))
    small = [wall(i) for i in range(5)] + [Frame(np.zeros((8, 8, 3), np.uint8), 1.0, 5)]
    sources = (
        Given("a", small),
        Given("b", map(wall, range(9)), SourceError("b: gave up")),
        Given("c", map(wall, range(40))),
    )
    events = []
    with (
        pytest.warns(RuntimeWarning, match="gave up .the other sources go on") as warned,
        pytest.raises(ImageError, match="show no words"),
    ):
        for event in reader.run(*sources):
            events.append(event)
            if isinstance(event, Statistics) and event.source == 1:
                assert len(warned) == 2
    assert {event.source: event.frames for event in of(Statistics, events)}[2] == 40


def test_times_that_are_numpys_are_written_as_json(tmp_path):
    reader, path = VideoReader(Reads(), Finds(lambda *_: [quad(200, 100)])), tmp_path / "words.jsonl"
    sink = Jsonl(str(path), ["a"])
    for i in range(20):
        frame = wall(i)
        for event in reader.push(Frame(frame.pixels, np.float32(i / 25), i, duration=np.float32(0.04))):
            sink.write(event)
    for event in reader.finish():
        sink.write(event)
    sink.close()
    assert [json.loads(line) for line in path.read_text().splitlines()][-1]


def test_words_behind_a_flush_have_numbers_of_their_own_where_one_came_back_before_it():
    """Word 1 is hidden for half a second and comes back; word 2 comes; then everything again."""
    from clip4str.video.gstreamer.feed import Feed, Timing
    from clip4str.video.gstreamer.reading import Reading

    first, second = quad(60, 60), quad(300, 200)

    def shown(_, frame):
        return ([] if 12 <= frame.index < 24 else [first]) + ([second] if frame.index >= 40 else [])

    def frame(run, i):
        grey = wall(i).pixels[..., 0].copy()
        if 12 <= i < 24:
            grey[50:100, 50:150] = RANDOM.integers(0, 255, (50, 100))
        if i < 40:
            grey[190:240, 290:400] = 0
        return Frame(np.repeat(grey[:, :, None], 3, 2), (60 * run + i) / 25, i)

    told, failed, feed = [], [], Feed(True)
    reader = VideoReader(Reads(), Finds(shown), detect_every=1)
    reading = Reading(reader, feed, lambda event, _: told.append(event), failed.append)
    for run in range(2):
        for i in range(60):
            feed.put(frame(run, i), Timing())
        feed.cut()
        feed.settle()
    reading.close()
    numbers = [event.track for event in of(WordFound, told)]
    assert not failed and len(numbers) == 4 and len(set(numbers)) == 4
    assert [statistics.tracks for statistics in of(Statistics, told)] == [2, 2]
