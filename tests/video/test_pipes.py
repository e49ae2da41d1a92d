"""Frames on standard input: YUV4MPEG2 and bare pixels."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
from clips import needed

from clip4str.core.errors import SourceError, UsageError
from clip4str.video.frames import grey, rgb
from clip4str.video.sources.pipes import LONGEST, Pipe, parse_raw
from clip4str.video.sources.recorded import Recorded

needed("cv2", "video")
COLOUR = (200, 60, 30)  # RGB


def planes(kind, height, width, full, red=0.299, blue=0.114):
    """A frame of COLOUR by the definition of Y'CbCr, with ITU-R BT.601's weights, or others."""
    r, g, b = (value / 255 for value in COLOUR)
    y = red * r + (1 - red - blue) * g + blue * b
    cb, cr = (b - y) / (2 - 2 * blue), (r - y) / (2 - 2 * red)
    spans = (0, 255, 255) if full else (16, 219, 224)
    luma, blue, red = spans[0] + spans[1] * y, 128 + spans[2] * cb, 128 + spans[2] * cr
    across, down = {"420": (2, 2), "422": (2, 1), "444": (1, 1)}[kind]
    count = -(-height // down) * -(-width // across)
    return bytes([round(luma)]) * (height * width) + bytes([round(blue)]) * count + bytes([round(red)]) * count


def frames(data, raw=None):
    return list(Recorded(Pipe(io.BytesIO(data), "-", parse_raw(raw) if raw else None)))


@pytest.mark.parametrize("kind, height, width", [("420", 8, 12), ("420", 7, 11), ("422", 8, 11), ("444", 7, 11)])
@pytest.mark.parametrize("full", [False, True])
def test_every_kind_of_colour_comes_out_as_it_went_in(kind, height, width, full):
    head = f"YUV4MPEG2 W{width} H{height} F30000:1001 Ip A1:1 C{kind} XYSCSS={kind}"
    head += " XCOLORRANGE=FULL" if full else " XCOLORRANGE=LIMITED"
    frame = b"FRAME\n" + planes(kind, height, width, full)
    got = frames(head.encode() + b"\n" + 3 * frame)
    assert [each.time for each in got] == pytest.approx([0, 1001 / 30000, 2002 / 30000])
    for each in got:
        assert each.size == (height, width)
        assert np.abs(rgb(each).astype(int) - COLOUR).max() <= 3
    if (height, width, full) == (8, 12, False):
        assert got[0].layout == "nv12" and grey(got[0]).shape == (8, 12)  # no conversion


@pytest.mark.parametrize("kind, height, width", [("420", 8, 1280), ("420", 578, 11), ("422", 8, 1280), ("444", 577, 4)])
@pytest.mark.parametrize("full", [False, True])
def test_large_frames_are_coloured_as_hd_is(kind, height, width, full):
    head = f"YUV4MPEG2 W{width} H{height} F25:1 C{kind}" + " XCOLORRANGE=FULL" * full
    (got,) = frames(head.encode() + b"\nFRAME\n" + planes(kind, height, width, full, 0.2126, 0.0722))
    assert np.abs(rgb(got).astype(int) - COLOUR).max() <= 3


def test_grey_video():
    got = frames(b"YUV4MPEG2 W4 H4 F25:1 Cmono\nFRAME\n" + bytes([16, 235] * 8))
    assert rgb(got[0])[0, :2].tolist() == [[0, 0, 0], [255, 255, 255]]


@pytest.mark.parametrize("kind, layout", [("rgb24", "rgb"), ("bgr24", "bgr"), ("nv12", "nv12")])
def test_bare_pixels_of_a_size_that_is_told(kind, layout):
    size = 4 * 6 * 3 // (2 if kind == "nv12" else 1)
    data = bytes(range(size))
    got = frames(data * 2, f"6x4@29.97:{kind}")
    assert [(each.layout, each.size) for each in got] == [(layout, (4, 6))] * 2
    assert got[1].time == pytest.approx(1 / 29.97) and got[1].pixels.tobytes() == data


@pytest.mark.parametrize("head", [b"FRA", b"FRAME\n", b"FRAME\n" + b"x" * 23])
def test_a_last_frame_that_is_cut_short_is_left_out_and_counted(head):
    whole = b"FRAME\n" + b"\x80" * 24
    source = Recorded(Pipe(io.BytesIO(b"YUV4MPEG2 W4 H4 F25:1\n" + 2 * whole + head), "-"))
    with pytest.warns(UserWarning, match="-: ended within frame 2, which is left out"):
        assert len(list(source)) == 2
    assert source.dropped == 1
    with pytest.warns(UserWarning, match="are its size and format as told"):
        assert len(frames(bytes(100), "4x4@1:rgb24")) == 2


@pytest.mark.parametrize(
    "data, said",
    [
        (b"", "nothing came; ffmpeg -i"),
        (b"\xff\xd8\xff\xe0 a photo", "no YUV4MPEG2 stream"),
        (b"YUV4MPEG2 W4 F25:1\n", "no width or no height"),
        (b"YUV4MPEG2 W4 H-4 F25:1\n", "no width or no height"),
        (b"YUV4MPEG2 W999999 H999999 F25:1\n", "999999x999999 pixels are more than"),
        (b"YUV4MPEG2 W0 H4 F25:1\n", "hold no word"),
        (b"YUV4MPEG2 W4 H4 C420p10\n", "'420p10' are not read"),
        (b"YUV4MPEG2 W4 H4 C\x1b[31m\n", r"'\\x1b\[31m' are not read|are not read"),
        (b"YUV4MPEG2 " + b"W4 " * 99999, f"more than {LONGEST} bytes"),
        (b"YUV4MPEG2 W4 H4 F25:1\n", "no frame"),
        (b"YUV4MPEG2 W4 H4 F25:1\nFRANE\n" + bytes(24), "no frame where one should begin"),
    ],
)
def test_hostile_headers_are_one_line(data, said):
    with pytest.raises(SourceError, match=said) as caught:
        frames(data)
    assert str(caught.value).isprintable()


def test_of_an_endless_header_little_is_read():
    stream = io.BytesIO(b"YUV4MPEG2 " + b"W4 " * 99999)
    with pytest.raises(SourceError):
        Pipe(stream, "-")
    assert stream.tell() <= LONGEST + 1


@pytest.mark.parametrize("rate, step", [("0:0", 1 / 25), ("1:0", 1 / 25), ("x", 1 / 25), ("50", 1 / 50), ("1:2", 2)])
def test_rates_that_are_none_count_as_25(rate, step):
    got = frames(f"YUV4MPEG2 W4 H4 F{rate}\n".encode() + 2 * (b"FRAME Ip\n" + bytes(24)))
    assert got[1].time == pytest.approx(step)


@pytest.mark.parametrize("raw", ["4x4", "4x4@0:rgb24", "4x4@1:rgb", "5x4@1:nv12", "4x4@1/0:rgb24", "4x4@-1:rgb24"])
def test_raw_that_is_none(raw):
    with pytest.raises(UsageError, match="raw"):
        parse_raw(raw)


CODE = """
from clip4str.video.sources import open_source
source = open_source("-")
print(source.name, source.size, next(source).index, flush=True)
"""


def test_standard_input_as_ffmpeg_pipes_it():
    data = b"YUV4MPEG2 W4 H4 F25:1\n" + 3 * (b"FRAME\n" + bytes(24))
    code = CODE + "print(len(list(source)))"
    done = subprocess.run([sys.executable, "-c", code], input=data, capture_output=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout.split(b"\n")[:2] == [b"standard input (4, 4) 0", b"2"]


def test_a_program_ends_though_who_pipes_does_not():
    process = subprocess.Popen([sys.executable, "-c", CODE], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    process.stdin.write(b"YUV4MPEG2 W4 H4 F25:1\n" + 3 * (b"FRAME\n" + bytes(24)))
    process.stdin.flush()
    assert process.wait(timeout=60) == 0  # with standard input open, and a thread that reads it
    assert process.stdout.read().startswith(b"standard input")
    process.stdin.close()
    process.stdout.close()


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="needs a pseudo terminal")
def test_a_terminal_is_no_video():
    _, slave = os.openpty()
    done = subprocess.run([sys.executable, "-c", CODE], stdin=slave, capture_output=True, text=True, timeout=60)
    assert "standard input: is a terminal" in done.stderr
