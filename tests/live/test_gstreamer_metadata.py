"""Words as GstAnalytics metadata: by GStreamer itself where it is 1.24 or newer, else by a stand-in that takes the same
calls (they were recorded with 1.26.2) and a real buffer's metadata."""

from __future__ import annotations

import re

import numpy as np
from gst_pipelines import NEEDED, Gst, GstVideo, parse, source, take, words

from clip4str.video.gstreamer import metadata
from clip4str.video.gstreamer.introspection import GLib

pytestmark = NEEDED
READER = "clip4strreader name=reader threads=1 wait=true"


class StandIn:
    """GstAnalytics with regions of interest in the place of object detections: they, too, need a writable buffer."""

    @staticmethod
    def buffer_add_analytics_relation_meta(buffer: Gst.Buffer) -> StandIn:
        made = StandIn()
        made.buffer = buffer
        return made

    def add_od_mtd(self, quark: int, x: int, y: int, w: int, h: int, confidence: float) -> tuple[bool, object]:
        name = GLib.quark_to_string(quark)
        region = GstVideo.buffer_add_video_region_of_interest_meta(self.buffer, name, x, y, w, h)
        assert isinstance(confidence, float) and region is not None
        return True, region


def seen(buffer: Gst.Buffer, real: object) -> list[tuple[str, tuple[int, ...]]]:
    if real is None:
        region = GstVideo.buffer_get_video_region_of_interest_meta_id(buffer, 0)
        return (
            []
            if region is None
            else [(GLib.quark_to_string(region.roi_type), (region.x, region.y, region.w, region.h))]
        )
    meta = real.buffer_get_analytics_relation_meta(buffer)
    if meta is None:
        return []
    found = [meta.get_od_mtd(number)[1] for number in range(real.relation_get_length(meta))]
    return [(GLib.quark_to_string(each.get_obj_type()), tuple(each.get_location())[1:5]) for each in found]


def run(monkeypatch, reader: str = READER) -> tuple[list[list[tuple[str, tuple[int, ...]]]], object]:
    """What the last element sees of each buffer, whose memory another branch of the pipeline has, too."""
    real = metadata.analytics()
    if real is None:
        monkeypatch.setattr(metadata, "analytics", StandIn)
    pipeline, done = parse(f"{source(10)} ! {words('HELLO')} ! tee name=both ! queue ! fakesink name=other "
                           f"both. ! queue ! {reader} ! fakesink name=end")  # fmt: skip
    here, there = [], []
    for name, found in (("end", here), ("other", there)):

        def probe(_: Gst.Pad, info: Gst.PadProbeInfo, found: list = found) -> Gst.PadProbeReturn:
            found.append(seen(info.get_buffer(), real))
            return Gst.PadProbeReturn.OK

        pipeline.get_by_name(name).get_static_pad("sink").add_probe(Gst.PadProbeType.BUFFER, probe)
    pipeline.set_state(Gst.State.PLAYING)
    take(pipeline, done)
    pipeline.set_state(Gst.State.NULL)
    assert there == [[]] * 10  # who has the same pictures is not written to
    assert done.before == done.after and done.texts() == ["HELLO"]
    return here, done


def test_buffers_carry_the_words_in_view(monkeypatch):
    here, done = run(monkeypatch)
    quad = np.reshape(list(done.all("word-found")[0]["quad"]), (4, 2))
    left, top = np.floor(quad.min(0)).astype(int)
    right, bottom = np.ceil(quad.max(0)).astype(int)
    assert here == [[("HELLO", (left, top, right - left, bottom - top))]] * 10


def test_buffers_carry_none_if_not_wanted(monkeypatch):
    here, _ = run(monkeypatch, f"{READER} metadata=false")
    assert here == [[]] * 10


def test_words_without_end_do_not_fill_the_memory(monkeypatch):
    """GLib never forgets a quark."""
    monkeypatch.setattr(metadata, "MOST", 3)
    monkeypatch.setattr(metadata, "_known", set())
    named = [GLib.quark_to_string(metadata._quark(text)) for text in ["a1", "b1", "c1", "d1", "e1", "a1"]]
    assert named == ["a1", "b1", "c1", "word", "word", "a1"]


def test_this_gstreamer_has_the_module_if_it_is_new_enough():
    major, minor = map(int, re.findall(r"\d+", Gst.version_string())[:2])
    assert (metadata.analytics() is not None) == ((major, minor) >= (1, 24))
