"""Frames that stay on a GPU, from the decoder to the word: a stand-in for PyNvVideoCodec (held against what was
recorded of the real one), a GPU that is this process's memory, and TensorRT on it (tests/runtime/trt)."""

from __future__ import annotations

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from clips import needed

cv2 = needed("cv2", "video")
needed("av", "av")
sys.path.append(str(Path(__file__).parents[1] / "runtime" / "trt"))
import nvcodec_standin  # noqa: E402  (these need the two)
from fake_cuda_arrays import pitched  # noqa: E402
from fake_gpu import FakeCuda  # noqa: E402
from fake_kernels import install  # noqa: E402
from scenes import SMALL, Knowing, video  # noqa: E402
from trt_rig import Rig, add_engines  # noqa: E402

from clip4str.core.device_array import DeviceArray  # noqa: E402
from clip4str.core.errors import BackendError, ImageError, SourceError, UsageError  # noqa: E402
from clip4str.core.packaged import PACKAGED  # noqa: E402
from clip4str.runtime import Recognizer  # noqa: E402
from clip4str.video import Frame, VideoReader, WordEnded, open_source  # noqa: E402
from clip4str.video.detect import Detections  # noqa: E402
from clip4str.video.detect.thumbnails import OnThumbnails  # noqa: E402
from clip4str.video.frames import check_frame, grey, rgb  # noqa: E402

FRAMES, SIZE = 10, (720, 1280)
STREET = replace(SMALL, size=SIZE, frames=FRAMES, signs=5, speed=3.0)


@pytest.fixture(scope="module")
def street(tmp_path_factory):
    """A file, and the truth about it."""
    path = tmp_path_factory.mktemp("gpu") / "street.mp4"
    frames, truth = video(STREET, 5)
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), 25, SIZE[::-1])
    for frame in frames:
        writer.write(frame.pixels[..., ::-1])
    writer.release()
    return path, truth


@pytest.fixture
def board(monkeypatch, tmp_path):
    """board(...): a GPU with TensorRT, the kernels and the decoder on it; how: of the decoder."""

    def make(kernels=None, **how):
        rig = Rig(monkeypatch)
        install(monkeypatch, rig.gpu, error=kernels)
        rig.cuda = FakeCuda(rig.gpu)
        rig.nvc = nvcodec_standin.module(rig.cuda, rig.gpu, **how)
        monkeypatch.setitem(sys.modules, "PyNvVideoCodec", rig.nvc)
        shutil.copytree(PACKAGED, tmp_path / "bundle")
        rig.recognizer = Recognizer.load(add_engines(tmp_path / "bundle"), "tensorrt")
        return rig

    return make


def closed(rig):
    rig.recognizer.close()
    with rig.cuda.current():
        for surface in rig.nvc.surfaces:
            rig.cuda.free(surface)
    rig.cuda.close()
    rig.check_empty()


def on_host(path):
    return [Frame(pixels, time, i, "nv12") for i, (time, pixels) in enumerate(nvcodec_standin.nv12_frames(path))]


def ended(events):
    return {event.text: event for event in events if isinstance(event, WordEnded)}


def copied(rig, name):
    return [size for _, call, size in rig.gpu.trace if call == name]


def test_a_file_is_decoded_searched_and_read_without_leaving_the_gpu(board, street, recognizer):
    path, truth = street
    rig = board()
    with open_source(path, backend="nvcodec") as source:
        assert (source.size, source.rate, source.live) == (SIZE, 25.0, False)
        got = ended(VideoReader(rig.recognizer, Knowing(truth), detect_every=4).run(source))
    want = ended(VideoReader(recognizer, Knowing(truth), detect_every=4).run(on_host(path)))
    assert got.keys() == want.keys() and len(got) >= 3
    for text, event in got.items():
        assert (event.start, event.end) == (want[text].start, want[text].end)
        if event.reads == want[text].reads:  # judged by a thumbnail, which of its crops are read may differ
            assert abs(event.confidence - want[text].confidence) < 0.05
        assert event.crop.shape[0] > 8 and abs(event.crop.mean() - want[text].crop.mean()) < 8
    # What came to the host: no plane of a frame; thumbnails, rows that words are in, and answers.
    assert max(copied(rig, "copy_out")) < SIZE[0] * SIZE[1] // 2
    thumbnails = [size for size in copied(rig, "copy_out") if size == 360 * 640]
    assert len(thumbnails) == FRAMES and max(copied(rig, "copy_in")) < SIZE[0] * SIZE[1] // 2
    closed(rig)


def test_without_crops_words_are_all_that_comes_to_the_host_beside_thumbnails(board, street):
    path, truth = street
    rig = board()
    source = open_source(path, backend="nvcodec")
    got = ended(VideoReader(rig.recognizer, Knowing(truth), crops=False).run(source))
    assert got and all(event.crop is None for event in got.values())
    assert {size for size in copied(rig, "copy_out") if size > 10_000} == {360 * 640}
    closed(rig)


def test_the_default_detector_is_shown_a_thumbnail_in_colour(board, street):
    path, _ = street
    rig, shown = board(), []

    class Looking:
        def detect(self, frame):
            shown.append(frame.pixels)
            return Detections(np.array([[[10, 10], [60, 10], [60, 30], [10, 30]]], np.float32), np.ones(1, np.float32))

    larger = Frame((DeviceArray(0, (1080, 1920)), DeviceArray(0, (540, 1920))), 0.0, 0, "nv12")
    found = OnThumbnails(Looking(), lambda frame, side: np.zeros((side * 9 // 16, side, 3), np.uint8)).detect(larger)
    assert np.array_equal(found.quads[0], np.array([[15, 15], [90, 15], [90, 45], [15, 45]]))
    reader = VideoReader(rig.recognizer, detector="auto")
    reader.detector.detector = Looking()
    with open_source(path, backend="nvcodec") as source:
        frame = next(source)
        reader.detector.detect(frame)
        want = rgb(on_host(path)[0])
    assert shown[1].shape == (*SIZE, 3) and np.abs(shown[1].astype(int) - want).max() <= 1
    closed(rig)


def test_of_several_sources_the_words_are_read_together(board, street):
    path, truth = street
    rig = board()
    sources = [open_source(path, backend="nvcodec") for _ in range(2)]
    events = list(VideoReader(rig.recognizer, Knowing(truth), detect_every=5).run(*sources))
    alone = ended(VideoReader(rig.recognizer, Knowing(truth), detect_every=5).run(open_source(path, backend="nvcodec")))
    for number in (0, 1):
        assert ended(e for e in events if e.source == number).keys() == alone.keys()
    closed(rig)


def test_without_the_kernels_a_frame_on_the_gpu_is_refused_in_one_line(board, street):
    path, truth = street
    rig = board(kernels=BackendError("no kernel library at /nowhere"))
    source = open_source(path, backend="nvcodec")
    with pytest.raises(BackendError, match="a frame on the GPU needs the compiled kernels: no kernel library") as told:
        list(VideoReader(rig.recognizer, Knowing(truth)).run(source))
    assert "\n" not in str(told.value)
    closed(rig)


def test_host_frames_of_nv12_get_their_colours_from_the_matrix_they_name(street):
    nv12 = on_host(street[0])[0].pixels
    named = [rgb(Frame(nv12, 0.0, layout="nv12", matrix=matrix)) for matrix in ("bt709", "bt601", None)]
    assert np.array_equal(named[0], named[2]) and not np.array_equal(named[0], named[1])  # HD
    luma, chroma = nv12[:720], nv12[720:]
    pair = Frame((luma, chroma.reshape(360, 640, 2)), 0.0, layout="nv12")
    check_frame(pair)
    assert pair.size == SIZE and np.array_equal(rgb(pair), named[2]) and np.array_equal(grey(pair), luma)


class Odd:
    def __init__(self, typestr="|u1", shape=(72, 128)):
        self.__cuda_array_interface__ = {
            "shape": shape, "typestr": typestr, "data": (1 << 40, False), "version": 3, "strides": None, "stream": None,
        }  # fmt: skip


BAD = [
    (Odd("<u2"), "nv12", ImageError, r"frame 7: uint16: 10- and 16-bit frames \(P010, P016\) are not read"),
    (np.zeros((72, 128), np.uint16), "nv12", ImageError, "frame 7: uint16: 10- and 16-bit"),
    (Odd("<f4"), "nv12", ImageError, "expected uint8 pixels for nv12, got float32"),
    (Odd(shape=(72, 127)), "nv12", ImageError, "even height and width"),
    (Odd(shape=(71, 128)), "nv12", ImageError, r"height \* 3 / 2 rows"),
    (Odd(shape=(72, 128)), "rgb", ImageError, r"expected uint8 \(H, W, 3\) for rgb"),
    ((Odd(shape=(47, 128)), Odd(shape=(23, 128))), "nv12", ImageError, "even height and width"),
    ((Odd(shape=(48, 128)), Odd(shape=(48, 128))), "nv12", ImageError, "chroma of half as many rows"),
    ((Odd(shape=(48, 128)), np.zeros((24, 128), np.uint8)), "nv12", ImageError, "both on the GPU or both on the host"),
    ((Odd(shape=(48, 128)),), "nv12", ImageError, "a pair"),
    ("frame.png", "rgb", ImageError, "expected a numpy array or one on a GPU, got a str"),
]


@pytest.mark.parametrize(("pixels", "layout", "error", "message"), BAD)
def test_what_is_no_frame_is_refused_before_the_gpu_is_asked(recognizer, pixels, layout, error, message):
    reader = VideoReader(recognizer, Knowing(None))
    with pytest.raises(error, match=message) as told:
        reader.push(Frame(pixels, 0.0, 7, layout))
    assert "\n" not in str(told.value)


def test_a_frame_on_a_gpu_that_the_recogniser_does_not_use_is_refused(recognizer):
    reader = VideoReader(recognizer, Knowing(None))
    with pytest.raises(ImageError, match="is on a GPU, which the backends tensorrt and torch read") as told:
        reader.push(Frame(Odd(), 0.0, 0, "nv12"))
    assert "\n" not in str(told.value)
    with pytest.raises(UsageError, match="matrix is"):
        reader.push(Frame(Odd(), 0.0, 0, "nv12", matrix="bt2020"))


def test_what_the_decoder_cannot_do_is_told_in_one_line(board, street, tmp_path, monkeypatch):
    path, _ = street
    text = tmp_path / "text.mp4"
    text.write_text("no video")
    for how, file, message in (
        ({"depth": 10}, path, r"10 bits a sample: 10- and 16-bit frames \(P010"),
        ({}, text, "cannot open it .*avformat_open_input"),
        ({}, tmp_path / "nowhere.mp4", "no such file"),
        ({"form": "YUV444"}, path, "decodes to YUV444: NV12 is what is read"),
        ({"fails_at": 3}, path, r"cannot decode it on \(Decode :"),
    ):
        gpu = Rig(monkeypatch).gpu
        monkeypatch.setitem(sys.modules, "PyNvVideoCodec", nvcodec_standin.module(FakeCuda(gpu), gpu, **how))
        with pytest.raises(SourceError, match=message) as told:
            list(open_source(file, backend="nvcodec"))
        assert "\n" not in str(told.value) and "/project" not in str(told.value)
    with pytest.raises(UsageError, match="leave out live=True"):
        open_source(path, backend="nvcodec", live=True)
    with pytest.raises(UsageError, match="of a video file also 'nvcodec'"):
        open_source("http://127.0.0.1:1/x.mp4", backend="nvcodec")
    monkeypatch.setitem(sys.modules, "PyNvVideoCodec", None)
    with pytest.raises(SourceError, match=r"pip install 'clip4str\[nvcodec\]'"):
        open_source(path, backend="nvcodec")
    monkeypatch.delitem(sys.modules, "PyNvVideoCodec")
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "PyNvVideoCodec.py").write_text(
        "raise RuntimeError('no libnvcuvid\\n\\n=== TROUBLESHOOTING ===\\n1. drivers')"
    )
    with pytest.raises(SourceError, match=r"does not load here \(no libnvcuvid\); pip install") as told:
        open_source(path, backend="nvcodec")
    assert "TROUBLE" not in str(told.value)


def test_frames_as_other_libraries_hold_them(board, street):
    """Pushed one by one: planes at pitches of their own, and a single array."""
    path, truth = street
    rig = board()
    from device_arrays import DeviceArray as OnGpu
    from device_arrays import Interface

    host, reader, kept = on_host(path)[:3], VideoReader(rig.recognizer, Knowing(truth), crops=False), []
    events = []
    for frame in host:
        luma, chroma = (OnGpu(rig.gpu, rig.cuda, part, pad=256) for part in (frame.pixels[:720], frame.pixels[720:]))
        kept += [luma, chroma]
        if frame.index == 1:
            whole = OnGpu(rig.gpu, rig.cuda, frame.pixels)
            kept.append(whole)
            pixels = Interface(whole)
        else:
            pixels = (pitched(luma, (720, 1280, 1)), pitched(chroma, (360, 640, 2)))
        events += reader.push(replace(frame, pixels=pixels))
    assert ended(events + reader.finish())
    for array in kept:
        array.free()
    closed(rig)
