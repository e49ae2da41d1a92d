"""Video files: frames, times, what is wrong with one. Each by OpenCV and, where it is installed, by PyAV."""

import importlib.util
import os
import subprocess
import sys
import threading

import numpy as np
import pytest
from clips import clip, flipped, needed, picture, shown_for, turned

from clip4str.core.errors import SourceError, UsageError
from clip4str.video.frames import rgb
from clip4str.video.sources import files, open_source
from clip4str.video.sources.base import MAX_PIXELS

needed("cv2", "video")
BACKENDS = ["opencv", "av"] if importlib.util.find_spec("av") else ["opencv"]
each_backend = pytest.mark.parametrize("backend", BACKENDS)


def near(a, b, most=12):
    return np.abs(a.astype(int) - b.astype(int)).mean() < most


@each_backend
def test_a_files_frames_in_order_with_what_is_known_before(tmp_path, backend):
    path = clip(tmp_path / "a.mp4", frames=7, rate=10)
    with open_source(path, backend=backend) as source:
        assert (source.name, source.live, source.size, source.rate, source.frames) == (
            str(path),
            False,
            (64, 96),
            10,
            7,
        )
        frames = list(source)
    assert [frame.index for frame in frames] == list(range(7))
    assert [frame.time for frame in frames] == pytest.approx([n / 10 for n in range(7)], abs=1e-9)
    assert [frame.duration for frame in frames] == pytest.approx([0.1] * 7, abs=1e-9)
    assert all(frame.layout == "bgr" and near(frame.pixels, picture(n)) for n, frame in enumerate(frames))
    assert source.dropped == 0 and not any(frame.damaged or frame.broken for frame in frames)
    assert next(source, None) is None


@each_backend
def test_times_at_a_variable_rate_are_the_containers_to_the_end_of_the_last_frame(tmp_path, backend):
    shown = [0.1, 0.5, 0.0625, 0.0625, 0.3, 0.7]
    path = shown_for(clip(tmp_path / "a.mp4", frames=6), shown)
    frames = list(open_source(path, backend=backend))
    assert [frame.time for frame in frames] == pytest.approx(np.cumsum([0, *shown[:-1]]), abs=1e-6)
    assert [frame.duration for frame in frames] == pytest.approx(shown, abs=1e-6)


@each_backend
@pytest.mark.parametrize("degrees, corner", [(90, (0, -1)), (180, (-1, -1)), (270, (-1, 0))])
def test_a_phones_video_is_turned_upright(tmp_path, backend, degrees, corner):
    path = turned(clip(tmp_path / "a.mp4", frames=3), degrees)
    with open_source(path, backend=backend) as source:
        frame = next(source)
    assert source.size == frame.size == ((64, 96) if degrees == 180 else (96, 64))
    y, x = (6 if side == 0 else size - 7 for side, size in zip(corner, frame.size))
    assert rgb(frame)[y, x, 0] > 150 and rgb(frame)[y, x, 1] < 80  # red, where the frame's own top left is shown
    assert frame.pixels.flags["C_CONTIGUOUS"]


@each_backend
def test_two_recordings_in_one_file_go_on_in_time(tmp_path, backend):
    one, two = (clip(tmp_path / name, 20, size, 25, "mp2v") for name, size in (("1.ts", (64, 96)), ("2.ts", (96, 128))))
    (tmp_path / "both.ts").write_bytes(one.read_bytes() + two.read_bytes())
    frames = list(open_source(tmp_path / "both.ts", backend=backend))
    steps = np.diff([frame.time for frame in frames])
    assert len(frames) >= 38 and steps == pytest.approx(np.full(len(frames) - 1, 0.04), abs=1e-6)
    broken = [frame for frame in frames if frame.broken]
    assert len(broken) == 1 and 18 <= broken[0].index <= 20
    # OpenCV scales every later frame to the first one's size, and tells nothing
    assert broken[0].broken == ("size changed" if backend == "av" else "time stepped back")
    assert backend == "opencv" or (frames[0].size, frames[-1].size) == ((64, 96), (96, 128))


@each_backend
@pytest.mark.filterwarnings("ignore:.*ends after 16 of 20 frames")
def test_times_of_a_damaged_file_never_step_back_nor_leap(tmp_path, backend):
    path = flipped(clip(tmp_path / "a.ts", 20, rate=25, codec="mp2v"), 60)
    frames = list(open_source(path, backend=backend))
    assert len(frames) > 10
    assert np.diff([frame.time for frame in frames]).min() > 0 and frames[-1].time < 2
    assert all(frame.duration > 0 for frame in frames)
    if backend == "av":
        damaged = [frame.damaged for frame in frames]
        assert any(damaged) and not all(damaged)


def test_only_pyav_marks_damage_so_auto_prefers_it(tmp_path, monkeypatch):
    path = clip(tmp_path / "a.mp4", 2)
    for installed, wanted in ((True, "PyAV"), (False, "OpenCV")):
        monkeypatch.setattr(files.importlib.util, "find_spec", lambda name, there=installed: there or None)
        for kind in ("PyAV", "OpenCV"):
            monkeypatch.setattr(files, kind, lambda *how, kind=kind: kind)
        assert files.open_decoder(str(path), "a", "auto", 1, None) == wanted


@each_backend
@pytest.mark.parametrize(
    "name, content, said",
    [
        ("none.mp4", None, "no such file"),
        ("empty.mp4", b"", "the file is empty"),
        ("noise.mp4", bytes(range(256)) * 20, "no video in it|cannot be opened"),
        ("notes.txt", b"HELLO WORLD\n" * 20, "no video in it|cannot be opened"),
    ],
)
def test_what_is_no_video_is_one_line(tmp_path, backend, name, content, said, capfd):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(SourceError, match=said) as caught:
        open_source(tmp_path / name, backend=backend)
    assert "\n" not in str(caught.value) and name in str(caught.value)
    assert capfd.readouterr() == ("", "")  # nor lines by the decoders


@each_backend
def test_an_mp4_that_was_cut_off_says_so(tmp_path, backend, capfd):
    whole = clip(tmp_path / "a.mp4").read_bytes()
    for length in (40, 100, len(whole) // 2):
        (tmp_path / "a.mp4").write_bytes(whole[:length])
        with pytest.raises(SourceError, match=r"a.mp4: cut off: an MP4 file whose index"):
            open_source(tmp_path / "a.mp4", backend=backend)
    assert capfd.readouterr() == ("", "")


@each_backend
def test_a_video_without_frames_and_one_without_video(tmp_path, backend):
    with pytest.raises(SourceError, match=r"no video|no frame|cannot be opened"):
        open_source(clip(tmp_path / "none.mp4", frames=0), backend=backend)
    samples = np.zeros(8000, np.int16).tobytes()
    head = b"RIFF" + (36 + len(samples)).to_bytes(4, "little") + b"WAVEfmt " + (16).to_bytes(4, "little")
    form = b"\1\0\1\0" + (8000).to_bytes(4, "little") + (16000).to_bytes(4, "little") + b"\2\0\20\0"
    (tmp_path / "sound.wav").write_bytes(head + form + b"data" + len(samples).to_bytes(4, "little") + samples)
    with pytest.raises(SourceError, match="no video"):
        open_source(tmp_path / "sound.wav", backend=backend)


@each_backend
def test_a_file_that_ends_early_warns(tmp_path, backend):
    path = clip(tmp_path / "a.avi", 40, codec="MJPG")
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 7 // 10])
    with pytest.warns(UserWarning, match=r"a.avi: ends after \d+ of 40 frames: cut off, or damaged"):
        frames = list(open_source(path, backend=backend, ahead=0))
    assert 10 < len(frames) < 36


@each_backend
def test_frames_of_hostile_size_are_refused_before_they_are_decoded(tmp_path, backend):
    path = tmp_path / "a.y4m"
    path.write_bytes(b"YUV4MPEG2 W16000 H16000 F25:1\nFRAME\n" + b"x" * 1000)
    with pytest.raises(SourceError, match=f"16000x16000 pixels are more than the {MAX_PIXELS:,} allowed"):
        open_source(path, backend=backend)


@each_backend
def test_many_files_at_once_keep_apart(tmp_path, backend):
    paths = [clip(tmp_path / f"{n}.mp4", frames=3 + n % 3, size=(64, 64 + 2 * n)) for n in range(24)]
    before = threading.active_count()
    sources = [open_source(path, backend=backend, threads=1) for path in paths]
    counts = [0] * len(sources)
    for _ in range(6):
        for n, source in enumerate(sources):
            frame = next(source, None)
            if frame is not None:
                assert frame.size == (64, 64 + 2 * n) and frame.index == counts[n]
                counts[n] += 1
    assert counts == [3 + n % 3 for n in range(24)]
    for source in sources:
        source.close()
    assert threading.active_count() == before


def test_the_message_where_a_library_is_missing(tmp_path, monkeypatch):
    path = clip(tmp_path / "a.mp4", 2)
    for module, backend, extra in (("av", "av", "av"), ("cv2", "opencv", "video")):
        monkeypatch.setitem(sys.modules, module, None)
        with pytest.raises(SourceError, match=rf"pip install 'clip4str\[{extra}\]'"):
            open_source(path, backend=backend)


def test_options_that_make_no_sense(tmp_path):
    path = clip(tmp_path / "a.mp4", 2)
    for options, said in [
        ({"backend": "gstreamer"}, "backend is"),
        ({"rate": 30}, "times of its own"),
        ({"ahead": -1}, "ahead is"),
        ({"timeout": 0}, "timeout is"),
        ({"give_up": -1.0}, "give_up is"),
        ({"give_up": float("nan")}, "give_up is"),
        ({"threads": 0}, "threads are"),
        ({"raw": "1x1@1:rgb24"}, "raw= is of standard input"),
        ({"layout": "yuv"}, "layout is"),
    ]:
        with pytest.raises(UsageError, match=said):
            open_source(path, **options)
    for nonsense in (None, 3.5, ""):
        with pytest.raises(UsageError):
            open_source(nonsense)


def test_a_program_that_ends_while_a_file_is_decoded_ends_well(tmp_path):
    path = clip(tmp_path / "a.mp4", 50)
    assert python(f"print(next(open_source({str(path)!r})).index)") == (0, "0\n", "")


def test_decoders_write_nothing_of_their_own(tmp_path):
    path = clip(tmp_path / "a.mp4", 50)
    path.write_bytes(path.read_bytes()[:3000])
    attempt = "try: open_source({!r}, backend='opencv', timeout=1)\nexcept SourceError: pass\n"
    addresses = ("http://me:secret@localhost:9/x", "rtsp://me:secret@localhost:9/x")
    assert python("".join(attempt.format(str(each)) for each in (path, *addresses))) == (0, "", "")


def python(code):
    """In a process where nobody has opened a video before."""
    code = f"from clip4str.core.errors import SourceError\nfrom clip4str.video.sources import open_source\n{code}"
    clean = {name: value for name, value in os.environ.items() if name != "OPENCV_FFMPEG_LOGLEVEL"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=clean)
    return done.returncode, done.stdout, done.stderr
