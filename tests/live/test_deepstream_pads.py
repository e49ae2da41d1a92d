"""DeepStream's probes on pads of real GStreamer, which has the buffers and threads; the metadata and surfaces are the
stand-in's, as DeepStream is not to be had here."""

from __future__ import annotations

import importlib.util
import re
import sys
import time
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tests" / "video"))
gi = pytest.importorskip("gi", reason="needs GStreamer for Python: make test-live")
pytest.importorskip("cv2")
pytestmark = pytest.mark.debian("python3-gi", "gir1.2-gst-plugins-base-1.0", "gstreamer1.0-plugins-base")
gi.require_version("Gst", "1.0")
from gi.repository import Gst  # noqa: E402
from pipelines import PLATE, Reader, labels, picture, settle  # noqa: E402
from pyds_standin import Pyds, items  # noqa: E402

from clip4str.video.deepstream import WordProbe  # noqa: E402
from clip4str.video.events import WordEnded  # noqa: E402

LONG = 20 * Gst.SECOND


def address(buffer):
    """In C, as GStreamer's Python shows it."""
    return int(re.search(r"\(\w+ at (0x[0-9a-f]+)\)", repr(buffer))[1], 16)


def test_words_are_read_on_a_pad_of_a_running_pipeline_and_all_buffers_pass():
    Gst.init(None)
    pyds, events, seen, ended = Pyds(), [], [], []
    probe = WordProbe(Reader({40: ("AB123", 0.95)}), pyds=pyds, on_event=events.append, budget=1e6)
    pipeline = Gst.parse_launch(
        "videotestsrc num-buffers=12 ! video/x-raw,format=RGBA,width=320,height=120,framerate=10/1 ! identity name=a "
        "! identity name=b ! identity name=c ! queue ! fakesink name=sink signal-handoffs=true"
    )

    def with_metadata(_, info):
        buffer = info.get_buffer()
        made = pyds.buffer([{"source_id": 0, "frame_num": len(seen), "pts": buffer.pts, "pixels": picture({PLATE: 40}),
                             "objects": [{"object_id": 7, "box": PLATE}]}])  # fmt: skip
        pyds._buffers[address(buffer)] = made  # where pyds looks for it
        return Gst.PadProbeReturn.OK

    def gone(_, info):
        made = pyds._buffers.pop(address(info.get_buffer()))
        seen.append(labels(items(made.batch, "frame_meta_list")[0])[7][0])
        pyds.release(made)
        settle(probe)
        return Gst.PadProbeReturn.OK

    for name, each in (("a", with_metadata), ("b", probe), ("c", gone)):
        pipeline.get_by_name(name).get_static_pad("src").add_probe(Gst.PadProbeType.BUFFER, each)
    pipeline.get_by_name("sink").connect("handoff", lambda *_: ended.append(time.monotonic()))
    pipeline.set_state(Gst.State.PLAYING)
    message = pipeline.get_bus().timed_pop_filtered(LONG, Gst.MessageType.EOS | Gst.MessageType.ERROR)
    pipeline.set_state(Gst.State.NULL)
    probe.close()
    assert message is not None and message.type == Gst.MessageType.EOS
    assert len(seen) == len(ended) == 12 and seen[0] is None and seen[-1] == "AB123"
    assert [(e.text, round(e.end, 3)) for e in events if isinstance(e, WordEnded)] == [("AB123", 1.2)]


def test_a_probe_that_fails_drops_no_buffer():
    Gst.init(None)
    said, passed = [], []
    probe = WordProbe(Reader({}), pyds=Pyds(), say=said.append)  # no buffer has metadata
    pipeline = Gst.parse_launch("videotestsrc num-buffers=5 ! fakesink name=sink signal-handoffs=true")
    pipeline.get_by_name("sink").get_static_pad("sink").add_probe(Gst.PadProbeType.BUFFER, probe)
    pipeline.get_by_name("sink").connect("handoff", lambda *_: passed.append(1))
    pipeline.set_state(Gst.State.PLAYING)
    assert pipeline.get_bus().timed_pop_filtered(LONG, Gst.MessageType.EOS) is not None
    pipeline.set_state(Gst.State.NULL)
    probe.close()
    assert len(passed) == 5 and len(said) >= 1


@pytest.mark.parametrize("plates", [True, False])
@pytest.mark.parametrize("display", [True, False])
def test_the_pages_pipeline_lacks_nothing_but_deepstreams_elements(plates, display):
    Gst.init(None)
    spec = importlib.util.spec_from_file_location("words", ROOT / "docs" / "deepstream" / "words.py")
    words = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(words)
    context = Gst.ParseContext.new()
    with pytest.raises(gi.repository.GLib.Error) as failed:
        Gst.parse_launch_full(words.description(["rtsp://a", "file:///b"], plates, display), context,
                              Gst.ParseFlags.FATAL_ERRORS)  # fmt: skip
    missing = context.get_missing_elements() or []
    assert "syntax" not in str(failed.value) and missing and all(name.startswith("nv") for name in missing)
    assert np.all([name in words.description(["a"], plates, display) for name in missing])
