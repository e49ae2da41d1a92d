"""clip4strreader beside a pipeline's life: slow readers, ends, seeks, changes of size, damage, errors."""

from __future__ import annotations

import threading

import numpy as np
import pytest
from gst_pipelines import NEEDED, Gst, Outcome, buffer, drawn, parse, play, push, source, take, words

from clip4str.core.errors import ImageError
from clip4str.runtime import Recognizer
from clip4str.video import Detections, Frame, VideoReader
from clip4str.video.gstreamer import session

pytestmark = NEEDED
READER = "clip4strreader name=reader threads=1"


class Held:
    """A detector that searches as long as it is held. It finds the word where textoverlay puts it."""

    def __init__(self) -> None:
        self.entered, self.released = threading.Event(), threading.Event()

    def detect(self, frame: Frame) -> Detections:
        self.entered.set()
        assert self.released.wait(60), "the pipeline waited for its reader"
        quad = np.array([[[236, 270], [406, 270], [406, 319], [236, 319]]], np.float32)
        return Detections(quad, np.ones(1, np.float32), ())


@pytest.fixture
def held(monkeypatch) -> Held:
    detector = Held()
    monkeypatch.setattr(session, "open_reader", lambda _: VideoReader(Recognizer.load(threads=1), detector))
    return detector


@pytest.fixture
def reading(held, monkeypatch) -> Held:
    """The same with a network that reads as long as it is held; words are found at once."""
    network, reads = Recognizer.load(threads=1), Held()
    read = network.read

    def slow(*args, **options):
        reads.entered.set()
        assert reads.released.wait(60), "the pipeline waited for its reader"
        return read(*args, **options)

    monkeypatch.setattr(network, "read", slow)
    monkeypatch.setattr(session, "open_reader", lambda _: VideoReader(network, held))
    held.released.set()
    return reads


def all_pass_before(held: Held) -> Outcome:
    """200 frames; what holds the reader lets go of it when all are through."""
    pipeline, done = parse(f"{source(200)} ! {words('HELLO')} ! {READER} ! fakesink name=end")
    pad = pipeline.get_by_name("end").get_static_pad("sink")

    def passed(_: Gst.Pad, info: Gst.PadProbeInfo) -> Gst.PadProbeReturn:
        if len(done.after) == 200:
            held.released.set()
        return Gst.PadProbeReturn.OK

    pad.add_probe(Gst.PadProbeType.BUFFER, passed)
    pipeline.set_state(Gst.State.PLAYING)
    take(pipeline, done)
    pipeline.set_state(Gst.State.NULL)
    statistics = done.all("statistics")[-1]
    assert len(done.after) == 200 and done.before == done.after
    assert statistics["frames"] + statistics["dropped"] == 200
    assert done.texts() == ["HELLO"] and done.last == "eos"
    return done


def test_frames_pass_while_one_is_searched(held):
    """The search of the first frame ends when all others are through: it is late by a whole stream."""
    done = all_pass_before(held)
    assert done.all("statistics")[-1]["detections"] <= 2  # the first, and one of the frame that waited
    assert done.all("word-ended")[0]["start"] == 0


def test_frames_pass_and_are_followed_while_a_word_is_read(reading):
    done = all_pass_before(reading)
    assert reading.entered.is_set() and done.all("statistics")[-1]["frames"] > 60
    assert done.all("word-ended")[0]["start"] == 0


def test_with_wait_every_frame_is_read():
    done = play(f"{source(60)} ! {words('HELLO')} ! {READER} wait=true ! fakesink")
    assert [(each["frames"], each["dropped"]) for each in done.all("statistics")] == [(60, 0)]


def test_words_are_told_before_the_end_is_known_downstream():
    pipeline, done = parse(f"{source(20)} ! {words('HELLO')} ! {READER} ! fakesink name=end")
    seen = []

    def posted(_: Gst.Bus, message: Gst.Message) -> Gst.BusSyncReply:
        if message.type == Gst.MessageType.ELEMENT:
            seen.append(message.get_structure().get_name())
        return Gst.BusSyncReply.PASS

    def ends(_: Gst.Pad, info: Gst.PadProbeInfo) -> Gst.PadProbeReturn:
        if info.get_event().type == Gst.EventType.EOS:
            seen.append("end")
        return Gst.PadProbeReturn.OK

    pipeline.get_by_name("end").get_static_pad("sink").add_probe(Gst.PadProbeType.EVENT_DOWNSTREAM, ends)
    pipeline.get_bus().set_sync_handler(posted)
    pipeline.set_state(Gst.State.PLAYING)
    take(pipeline, done)
    pipeline.set_state(Gst.State.NULL)
    assert seen == ["clip4str-word-found", "clip4str-word-ended", "clip4str-statistics", "end"]


def test_a_pipeline_that_is_stopped_tells_the_words_in_view():
    pipeline, done = parse(f"{source(100_000, more='is-live=true')} ! {words('HELLO')} ! {READER} ! fakesink")
    pipeline.set_state(Gst.State.PLAYING)
    take(pipeline, done, until="clip4str-word-found")
    pipeline.set_state(Gst.State.READY)
    take(pipeline, done, until="clip4str-statistics")
    pipeline.set_state(Gst.State.NULL)
    assert done.texts() == ["HELLO"] and done.last == "clip4str-statistics"


def test_words_last_as_long_as_a_pipeline_is_paused():
    """Longer than a word that is gone is waited for."""
    pipeline, done = parse(f"{source(100_000)} ! {words('HELLO')} ! {READER} ! fakesink sync=true")
    pipeline.set_state(Gst.State.PLAYING)
    take(pipeline, done, until="clip4str-word-found")
    pipeline.set_state(Gst.State.PAUSED)
    assert pipeline.get_bus().timed_pop_filtered(2 * Gst.SECOND, Gst.MessageType.ELEMENT) is None
    pipeline.set_state(Gst.State.READY)
    take(pipeline, done, until="clip4str-statistics")
    pipeline.set_state(Gst.State.NULL)
    assert done.texts() == ["HELLO"]


def test_words_end_when_a_camera_gives_no_more_frames():
    pipeline, done = parse(f"appsrc name=source format=time is-live=true ! {READER} ! fakesink")
    given = pipeline.get_by_name("source")
    caps, data = drawn("HELLO", "GRAY8")
    given.set_property("caps", caps)
    pipeline.set_state(Gst.State.PLAYING)
    given.emit("push-buffer", buffer(data, 0))
    take(pipeline, done, until="clip4str-word-ended")  # though the stream has no end
    pipeline.set_state(Gst.State.NULL)
    assert done.texts() == ["HELLO"]


def test_a_pipeline_can_be_played_again_with_other_properties():
    pipeline, done = parse(f"{source(10)} ! {words('TRAIN 42')} ! {READER} wait=true ! fakesink")
    for pattern in ("", "[0-9]+"):
        pipeline.get_by_name("reader").set_property("pattern", pattern)
        pipeline.set_state(Gst.State.PLAYING)
        done.messages.append(("played", {}))
        take(pipeline, done)
        pipeline.set_state(Gst.State.NULL)
    assert done.texts() == ["42", "42", "TRAIN"]


@pytest.mark.parametrize("wait", ["false", "true"])
def test_a_pipeline_that_is_stopped_does_not_wait_for_a_frame_that_hangs(held, wait, monkeypatch):
    monkeypatch.setattr("clip4str.video.gstreamer.reading.PATIENCE", 0.1)
    pipeline, _ = parse(f"{source(100_000)} ! {words('HELLO')} ! {READER} wait={wait} ! fakesink")
    pipeline.set_state(Gst.State.PLAYING)
    assert held.entered.wait(60)
    stopped = threading.Thread(target=lambda: pipeline.set_state(Gst.State.NULL), daemon=True)
    stopped.start()
    stopped.join(30)
    assert not stopped.is_alive() and not held.released.is_set()
    held.released.set()


def test_after_a_seek_words_are_others_with_numbers_of_their_own(tmp_path):
    made = play(f"{source(100)} ! {words('HELLO')} ! {READER} ! jpegenc ! matroskamux ! filesink location={tmp_path}/a")
    assert made.last == "eos"
    pipeline, done = parse(f"filesrc location={tmp_path}/a ! matroskademux ! jpegdec ! {READER} wait=true ! fakesink")
    pipeline.set_state(Gst.State.PLAYING)
    take(pipeline, done)
    pipeline.seek_simple(Gst.Format.TIME, Gst.SeekFlags.FLUSH | Gst.SeekFlags.ACCURATE, 2 * Gst.SECOND)
    done.messages.append(("sought", {}))
    take(pipeline, done)
    pipeline.set_state(Gst.State.NULL)
    first, second = done.all("word-ended")
    assert (first["text"], second["text"]) == ("HELLO", "HELLO") and first["track"] != second["track"]
    assert (first["stream-start"], first["stream-end"]) == (0, 4 * Gst.SECOND)
    assert (second["start"], second["end"]) == (0, 2 * Gst.SECOND)  # running time begins anew
    assert (second["stream-start"], second["stream-end"]) == (2 * Gst.SECOND, 4 * Gst.SECOND)


def test_a_seek_in_the_middle_ends_the_words_and_loses_none(tmp_path):
    play(f"{source(100)} ! {words('HELLO')} ! {READER} ! jpegenc ! matroskamux ! filesink location={tmp_path}/a")
    pipeline, done = parse(f"filesrc location={tmp_path}/a ! matroskademux ! jpegdec ! {READER} ! fakesink sync=true")
    pipeline.set_state(Gst.State.PLAYING)
    take(pipeline, done, until="clip4str-word-found")
    for _ in range(5):
        pipeline.seek_simple(Gst.Format.TIME, Gst.SeekFlags.FLUSH | Gst.SeekFlags.ACCURATE, Gst.SECOND)
    done.messages.append(("sought", {}))
    take(pipeline, done)
    pipeline.set_state(Gst.State.NULL)
    found, ended = ([each["track"] for each in done.all(name)] for name in ("word-found", "word-ended"))
    assert found == ended and len(set(found)) == len(found) >= 2
    assert set(done.texts()) == {"HELLO"}


def test_a_size_that_changes_is_a_gap_and_both_sizes_are_read():
    one = f"{source(20, more='name=one')} ! {words('HELLO')}"
    two = f"{source(20, size='width=322,height=242')} ! {words('WORLD')}"
    done = play(f"concat name=both ! {READER} wait=true ! fakesink {one} ! both. {two} ! both.")
    assert [(gap["reason"], gap["end"]) for gap in done.all("gap")] == [("size changed", 20 * Gst.SECOND // 25)]
    ended = {each["text"]: (each["start"], each["end"]) for each in done.all("word-ended")}
    assert ended == {"HELLO": (0, 800_000_000), "WORLD": (800_000_000, 1_600_000_000)}


def grey(number: int, level: int = 100, size: int = 640 * 360) -> Gst.Buffer:
    return buffer(bytes([level]) * size, number * Gst.SECOND // 25)


def pushed(buffers: list[Gst.Buffer], size: str = "width=640,height=360") -> Outcome:
    caps = Gst.Caps.from_string(f"video/x-raw,format=GRAY8,framerate=25/1,{size}")
    return push(caps, buffers, f"{READER} wait=true")


def test_damaged_frames_are_a_gap():
    buffers = [grey(number, 100 + number) for number in range(10)]
    for each in buffers[3:6]:
        each.set_flags(Gst.BufferFlags.CORRUPTED)
    done = pushed(buffers)
    gaps = [(gap["reason"], gap["start"], gap["end"]) for gap in done.all("gap")]
    assert gaps == [("damaged", 3 * Gst.SECOND // 25, 6 * Gst.SECOND // 25)]
    assert done.all("statistics")[0]["damaged"] == 3


def test_buffers_without_time_stamps_are_an_error_in_one_line():
    buffers = [grey(0)]
    buffers[0].pts = Gst.CLOCK_TIME_NONE
    done = pushed(buffers)
    assert done.last == "error" and "no time stamps" in done.messages[-1][1]["line"]


def test_frames_too_small_for_words_are_an_error_in_one_line():
    done = pushed([grey(0, size=8 * 8)], "width=8,height=8")
    assert done.last == "error"
    assert done.messages[-1][1]["line"] == "frame 0: 8x8 pixels show no words"


def test_a_buffer_shorter_than_its_picture_is_an_error_in_one_line():
    done = pushed([grey(0, size=1000)])
    assert done.last == "error" and "holds no GRAY8 picture of 640x360" in done.messages[-1][1]["line"]


@pytest.mark.parametrize(
    "error, line", [(ImageError("no picture"), "no picture"), (ValueError("odd\nends"), "ValueError: odd")]
)
def test_what_breaks_in_the_middle_is_an_error_and_words_so_far_are_told(monkeypatch, error, line):
    class Breaking(Held):
        def detect(self, frame: Frame) -> Detections:
            if frame.time > 0.5:
                raise error
            return super().detect(frame)

    detector = Breaking()
    detector.released.set()
    reader = VideoReader(Recognizer.load(threads=1), detector, detect_every=1)
    monkeypatch.setattr(session, "open_reader", lambda _: reader)
    done = play(f"{source(100, more='pattern=ball')} ! {words('HELLO')} ! {READER} wait=true ! fakesink")
    assert done.texts() == ["HELLO"] and done.messages[-1][1]["line"] == line
