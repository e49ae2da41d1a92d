"""clip4strreader in real pipelines: what is drawn by GStreamer is read back, with the packaged network and detector."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from gst_pipelines import NEEDED, Gst, GstVideo, buffer, drawn, play, push, source, words

from clip4str.video import Gap, Statistics, WordChanged, WordEnded, WordFound
from clip4str.video.gstreamer.feed import Timing
from clip4str.video.gstreamer.messages import structure

pytestmark = NEEDED
READER = "clip4strreader name=reader threads=1 wait=true"


def test_words_of_a_test_picture_are_told_with_their_times():
    done = play(f"{source(50)} ! {words('TRAIN')} ! {READER} ! fakesink")
    found, ended = done.all("word-found"), done.all("word-ended")
    assert [each["text"] for each in found] == done.texts() == ["TRAIN"]
    assert ended[0]["track"] == found[0]["track"] and ended[0]["confidence"] > 0.5
    assert (ended[0]["start"], ended[0]["end"]) == (0, 2 * Gst.SECOND)
    assert (ended[0]["stream-start"], ended[0]["stream-end"]) == (0, 2 * Gst.SECOND)
    quad = np.reshape(list(ended[0]["quad"]), (4, 2))
    assert (quad >= 0).all() and (quad <= (640, 360)).all() and quad[1, 0] > quad[0, 0] + 100  # as wide as the word
    assert done.last == "eos"


@pytest.mark.parametrize("format", ["NV12", "RGB", "BGR", "I420", "YV12", "GRAY8", "RGBx", "BGRA"])
def test_every_format_gives_the_same_words(format):
    done = play(f"{source(6)} ! {words('TRAIN 42')} ! videoconvert ! video/x-raw,format={format} ! {READER} ! fakesink")
    assert done.texts() == ["42", "TRAIN"]


@pytest.mark.parametrize("format", ["NV12", "RGB", "I420"])
def test_odd_sizes_with_padded_rows_are_read(format):
    done = play(f"{source(6, format, 'width=637,height=359')} ! {words('TRAIN')} ! {READER} ! fakesink")
    assert done.texts() == ["TRAIN"]


@pytest.mark.parametrize("format", ["NV12", "RGB"])
def test_buffers_pass_on_untouched(format):
    done = play(f"{source(30, format)} ! {words('TRAIN')} ! {READER} ! fakesink")
    assert len(done.before) == 30 and done.before == done.after
    assert done.texts() == ["TRAIN"]


def test_a_file_is_read(tmp_path):
    made = Gst.parse_launch(
        f"{source(40)} ! {words('HARBOUR')} ! jpegenc ! avimux ! filesink location={tmp_path}/a.avi"
    )
    made.set_state(Gst.State.PLAYING)
    ended = made.get_bus().timed_pop_filtered(60 * Gst.SECOND, Gst.MessageType.EOS | Gst.MessageType.ERROR)
    made.set_state(Gst.State.NULL)
    assert ended.type == Gst.MessageType.EOS
    done = play(f"filesrc location={tmp_path}/a.avi ! decodebin ! videoconvert ! {READER} ! fakesink")
    assert done.texts() == ["HARBOUR"]
    assert done.all("word-ended")[0]["end"] == 40 * Gst.SECOND // 25
    assert done.all("statistics")[0]["frames"] == 40


def test_rows_lie_where_the_buffers_video_meta_says():
    """Padding before, between and after rows, full of white noise, as decoders' and cameras' buffers have it."""
    caps, data = drawn("TRAIN", "NV12")
    tight = np.frombuffer(data, np.uint8).reshape(540, 640)
    stride, first, second = 704, 704 * 8, 704 * 400
    loose = np.random.default_rng(0).integers(0, 256, 704 * 600, dtype=np.uint8)
    for offset, rows in ((first, tight[:360]), (second, tight[360:])):
        loose[offset : offset + stride * len(rows)].reshape(-1, stride)[:, :640] = rows
    padded = buffer(loose.tobytes(), 0)
    GstVideo.buffer_add_video_meta_full(padded, GstVideo.VideoFrameFlags.NONE, GstVideo.VideoFormat.NV12, 640, 360, 2,
                                        [first, second, 0, 0], [stride, stride, 0, 0])  # fmt: skip
    plain, done = push(caps, [buffer(data, 0)], READER), push(caps, [padded], READER)
    assert done.texts() == plain.texts() == ["TRAIN"]
    assert list(done.all("word-ended")[0]["quad"]) == list(plain.all("word-ended")[0]["quad"])


def test_frames_last_as_long_as_their_buffers_say():
    caps, data = drawn("TRAIN", "RGB")
    second = Gst.SECOND
    done = push(caps, [buffer(data, 3 * second, second), buffer(data, 4 * second, 5 * second)], READER)
    assert [(each["start"], each["end"]) for each in done.all("word-ended")] == [(3 * second, 9 * second)]


def test_pattern_region_and_lexicon_choose_words(tmp_path):
    drawn = f"{source(6)} ! {words('TRAIN 42')}"
    assert play(f"{drawn} ! {READER} pattern=[0-9]+ ! fakesink").texts() == ["42"]
    assert play(f"{drawn} ! {READER} region=0,0,640,100 ! fakesink").texts() == []
    (tmp_path / "words").write_text("TRAINS\n42\n", encoding="utf-8")
    assert play(f"{drawn} ! {READER} lexicon={tmp_path}/words ! fakesink").texts() == ["42", "TRAINS"]


def test_word_ended_has_the_words_picture_if_asked():
    done = play(f"{source(6)} ! {words('TRAIN')} ! {READER} crops=true ! fakesink")
    sample = done.all("word-ended")[0]["crop"]
    info = GstVideo.VideoInfo.new_from_caps(sample.get_caps())
    assert info.finfo.name == "RGB" and info.width > 1.5 * info.height > 20
    with sample.get_buffer().map(Gst.MapFlags.READ) as mapped:
        rows = np.frombuffer(mapped.data, np.uint8).reshape(info.height, info.stride[0])
    pixels = rows[:, : info.width * 3].reshape(info.height, info.width, 3)
    assert pixels.max() > 200 and pixels[:2].max() < 100  # white letters, black above them
    assert "crop" not in play(f"{source(6)} ! {words('TRAIN')} ! {READER} ! fakesink").all("word-ended")[0]


def fields_on_the_page() -> dict[str, set[str]]:
    text = (Path(__file__).resolve().parents[2] / "docs" / "gstreamer.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(clip4str-[\w-]+)` \| (`.+`) \|$", text, re.MULTILINE)
    return {name: set(re.findall(r"`([\w-]+)`", fields)) for name, fields in rows}


def test_messages_have_the_fields_that_the_page_says():
    quad, crop = np.zeros((4, 2), np.float32), np.zeros((8, 30, 3), np.uint8)
    events = [
        WordFound(0, 1, 0.5, 0.25, "a", 0.5, quad, "plate"),
        WordChanged(0, 1, 0.5, "b", "a", 0.5, quad),
        WordEnded(0, 1, "b", 0.5, 0.25, 0.75, 0.5, quad, 3, 4, "plate", crop),
        Gap(0, 0.0, 1.0, "damaged"),
        Statistics(0, milliseconds={"read": 1.0}),
    ]
    made = [structure(event, Timing(1.0, 10.0)) for event in events]
    names = {each.get_name(): {each.nth_field_name(n) for n in range(each.n_fields())} for each in made}
    assert names == fields_on_the_page()
    ended = made[2]
    assert (ended.get_value("end"), ended.get_value("stream-end")) == (750_000_000, 10_750_000_000)
    types = {name: ended.get_field_type(name).name for name in names["clip4str-word-ended"]}
    assert types == {
        **dict.fromkeys(["track", "reads", "frames"], "guint64"),
        **dict.fromkeys(["start", "end", "time", "stream-start", "stream-end", "stream-time"], "guint64"),
        "text": "gchararray", "label": "gchararray", "confidence": "gdouble", "quad": "GstValueArray",
        "crop": "GstSample", "partial": "gboolean",
    }  # fmt: skip
    assert made[4].get_field_type("ended").name == "gboolean"
