"""What of the GStreamer element needs no GStreamer: pictures in buffers, the queue of one, the exports. The rest:
tests/live."""

from __future__ import annotations

import re
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest

from clip4str.core.errors import ImageError
from clip4str.video.frames import Frame, grey, rgb
from clip4str.video.gstreamer import exports
from clip4str.video.gstreamer.feed import Feed, Timing
from clip4str.video.gstreamer.pictures import pixels
from clip4str.video.gstreamer.properties import PROPERTIES


def frame(number: int, broken: str = "") -> Frame:
    return Frame(np.zeros((16, 16, 3), np.uint8), number / 10, number, broken=broken)


def take(source) -> int | None:
    got = next(source, None)
    return None if got is None else got.index


def settled(feed: Feed) -> threading.Thread:
    thread = threading.Thread(target=feed.settle, daemon=True)
    thread.start()
    return thread


def test_a_paused_feed_says_so_and_keeps_nobody_waiting():
    feed = Feed()
    feed.put(frame(0), Timing())
    source = feed.begin()
    assert take(source) == 0 and not source.paused
    feed.pause(True)
    waiting = threading.Thread(target=source.wait, args=(0.05,), daemon=True)
    waiting.start()
    waiting.join(20)
    assert not waiting.is_alive() and source.paused
    feed.pause(False)
    feed.put(frame(1), Timing())
    assert not source.paused and source.wait(20) and take(source) == 1


def test_the_newest_frame_is_kept_and_the_others_are_counted():
    feed = Feed()
    for number in range(5):
        feed.put(frame(number, "reconnected" if number == 2 else ""), Timing(shift=number))
    source = feed.begin()
    got = next(source)
    assert (got.index, got.broken, source.dropped, feed.timing.shift) == (4, "reconnected", 4, 4)
    assert source.live and not source.wait(0)


def test_a_cut_ends_a_source_after_its_frame_and_the_next_begins_behind_it():
    feed = Feed()
    feed.put(frame(0), Timing())
    feed.cut()
    for number in (1, 2, 3):
        feed.put(frame(number), Timing())
    first = feed.begin()
    assert [take(first), take(first), take(first)] == [0, None, None] and first.dropped == 0
    second = feed.begin()
    assert take(second) == 3 and second.dropped == 2


def test_settle_waits_until_the_last_frame_is_done_with():
    feed = Feed()
    feed.put(frame(0), Timing())
    feed.cut()
    waiting = settled(feed)
    source = feed.begin()
    assert take(source) == 0
    waiting.join(0.05)
    assert waiting.is_alive()
    assert take(source) is None
    waiting.join(0.05)
    assert waiting.is_alive()  # its words are still to be told
    threading.Thread(target=feed.begin, daemon=True).start()
    waiting.join(10)
    assert not waiting.is_alive()
    feed.shut()


@pytest.mark.parametrize("release", ["interrupt", "shut"])
def test_nobody_waits_for_a_reader_that_hangs(release):
    feed = Feed(wait=True)
    putting = threading.Thread(target=lambda: feed.put(frame(0), Timing()), daemon=True)
    putting.start()
    source = feed.begin()
    assert take(source) == 0
    waiting = settled(feed)
    getattr(feed, release)()
    for thread in (putting, waiting):
        thread.join(10)
        assert not thread.is_alive()


def test_while_interrupted_nothing_is_taken():
    feed = Feed()
    feed.put(frame(0), Timing())
    feed.interrupt()
    feed.put(frame(1), Timing())
    feed.cut()
    feed.resume()
    feed.put(frame(2), Timing())
    assert take(feed.begin()) == 2


def test_what_is_shut_gives_no_more():
    feed = Feed()
    feed.put(frame(0), Timing())
    source = feed.begin()
    feed.shut()
    feed.put(frame(1), Timing())
    assert take(source) is None and feed.begin() is None


def colour(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(height * width).integers(0, 256, (height, width, 3), dtype=np.uint8)


@pytest.mark.parametrize("format", ["RGB", "BGR", "RGBA", "RGBx", "BGRA", "BGRx"])
@pytest.mark.parametrize("size, stride, offset", [((6, 8), 32, 0), ((5, 7), 45, 13)])
def test_packed_pictures_come_out_as_they_are(format, size, stride, offset):
    height, width = size
    channels = len(format)
    wanted = colour(height, width)
    data = np.full(offset + stride * height, 77, np.uint8)
    rows = data[offset:].reshape(height, stride)
    for channel, letter in enumerate("RGB"):
        rows[:, format.index(letter) : width * channels : channels] = wanted[..., channel]
    picture, layout = pixels(data, format, width, height, [stride], [offset])
    data[:] = 0  # the buffer is another one's now
    np.testing.assert_array_equal(rgb(Frame(picture, 0.0, layout=layout)), wanted)


@pytest.mark.parametrize("size", [(6, 8), (5, 7)])
@pytest.mark.parametrize("format", ["NV12", "I420", "YV12"])
def test_pictures_in_planes_are_nv12_of_even_size(format, size):
    random, (height, width) = np.random.default_rng(1), size
    half, columns = (height + 1) // 2, (width + 1) // 2
    luma = random.integers(0, 256, (height, width), dtype=np.uint8)
    u, v = random.integers(0, 256, (2, half, columns), dtype=np.uint8)
    planes = {"NV12": [luma, np.stack((u, v), -1).reshape(half, -1)], "I420": [luma, u, v], "YV12": [luma, v, u]}[
        format
    ]
    data, strides, offsets = np.full(2000, 99, np.uint8), [], []
    for number, plane in enumerate(planes):
        strides.append(plane.shape[1] + 5)
        offsets.append(3 + 500 * number)
        for row, values in enumerate(plane):
            first = offsets[-1] + row * strides[-1]
            data[first : first + len(values)] = values
    picture, layout = pixels(data, format, width, height, strides, offsets)
    data[:] = 0
    even = (height // 2 * 2, width // 2 * 2)
    assert layout == "nv12"
    np.testing.assert_array_equal(grey(Frame(picture, 0.0, layout=layout)), luma[: even[0], : even[1]])
    np.testing.assert_array_equal(picture[even[0] :, 0::2], u[: even[0] // 2, : even[1] // 2])
    np.testing.assert_array_equal(picture[even[0] :, 1::2], v[: even[0] // 2, : even[1] // 2])


def test_grey_pictures_are_grey():
    data = np.arange(40, dtype=np.uint8)
    picture, layout = pixels(data, "GRAY8", 6, 5, [8], [0])
    data[:] = 0
    assert layout == "rgb"
    np.testing.assert_array_equal(picture, np.arange(40).reshape(5, 8)[:, :6, None].repeat(3, 2))


@pytest.mark.parametrize(
    "strides, offsets", [([9, 8], [0, 49]), ([7, 8], [0, 48]), ([8, 8], [-1, 48]), ([8, 10], [0, 48])]
)
def test_planes_outside_of_the_buffer_are_not_read(strides, offsets):
    with pytest.raises(ImageError, match="a buffer of 72 bytes holds no NV12 picture of 8x6"):
        pixels(np.zeros(72, np.uint8), "NV12", 8, 6, strides, offsets)


def test_the_exports_lead_to_the_plugin_and_to_all_it_needs():
    """By a Python that has nothing else, as GStreamer's has not."""
    code = "import sys; sys.path.pop(0); import numpy, clip4str.video.gstreamer as g; print(numpy.__file__, g.FOLDER)"
    python = sys._base_executable
    script = f"export GST_PLUGIN_PATH= PYTHONPATH=; {exports()}; cd /; {python} -c '{code}'; echo $GST_PLUGIN_PATH"
    out = subprocess.run(["sh", "-c", script], capture_output=True, text=True, check=True).stdout.split()
    assert Path(out[0]).samefile(np.__file__)
    assert out[1] == out[2] and (Path(out[2]) / "python" / "clip4strreader.py").is_file()


def test_the_page_has_every_property_and_its_default():
    text = (Path(__file__).resolve().parents[2] / "docs" / "gstreamer.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `([\w-]+)` \| (string|integer|boolean|double) \| `?(\w*)`? ?\|", text, re.MULTILINE)
    kinds = {str: "string", int: "integer", bool: "boolean", float: "double"}
    known = [
        (each.name, kinds[each.of], f"{each.default:g}" if each.of is float else str(each.default))
        for each in PROPERTIES
    ]
    assert rows == [(name, kind, default.lower()) for name, kind, default in known]
