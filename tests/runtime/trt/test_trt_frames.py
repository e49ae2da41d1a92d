"""Words of frames on the TensorRT backend: cut by the kernels on the GPU, from wherever the frame is."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import pytest
from device_arrays import DeviceArray, DLPack, Interface
from fake_cuda_arrays import pitched
from fake_gpu import FakeCuda, FakeGpu
from fake_kernels import install

from clip4str.core import device_array
from clip4str.core.errors import BackendError, Clip4StrError, DeviceError, ImageError, LayoutError, ShapeError
from clip4str.core.packaged import PACKAGED
from clip4str.core.thumbnail import thumbnail
from clip4str.runtime import FrameQuads, Recognizer

QUADS = [
    [[20, 10], [90, 14], [88, 40], [18, 36]],
    [[5, 5], [60, 5], [60, 30], [5, 30]],
    [[70, 2], [90, 2], [90, 44], [70, 44]],  # as tall as a word that runs up
]


@pytest.fixture(scope="module")
def nv12():
    random = np.random.default_rng(3)
    return random.integers(0, 256, (48 * 3 // 2, 128), dtype=np.uint8)


@pytest.fixture
def host(tiny_bundle):
    return Recognizer.load(tiny_bundle, backend="onnxruntime", threads=1)


@pytest.fixture
def opened(rig, engine_bundle, monkeypatch):
    """opened(gpu=..., error=..., ...) -> the rig, a recogniser on it, and the stand-in's class"""

    def make(gpu=None, **how):
        r = rig(gpu=gpu)
        library = install(monkeypatch, r.gpu, **how)
        r.cuda = FakeCuda(r.gpu)
        return r, Recognizer.load(engine_bundle(), backend="tensorrt"), library

    return make


def finished(r, recognizer, *arrays):
    for array in arrays:
        array.free()
    recognizer.close()
    r.cuda.close()
    r.check_empty()


def texts(words):
    return [(w.text, w.turns) for w in words]


@pytest.mark.parametrize("integrated", [False, True])
def test_a_host_frame_is_uploaded_once_and_cut_on_the_gpu(opened, host, nv12, integrated):
    r, recognizer, library = opened(FakeGpu(integrated=integrated))
    recognizer.batch_size = recognizer.backend.batch_size = 2
    rgb = np.random.default_rng(1).integers(0, 256, (50, 100, 3), dtype=np.uint8)
    for frame, layout in ((nv12, "nv12"), (rgb, "rgb"), (rgb[:, ::-1], "bgr"), ((nv12[:48], nv12[48:]), "nv12")):
        before = r.gpu.calls["copy_in"]
        words = recognizer.read_quads(frame, QUADS, layout, matrix="bt709")
        assert texts(words) == texts(host.read_quads(frame, QUADS, layout, matrix="bt709"))
        crops = recognizer.backend.crop(frame, QUADS, layout=layout)
        assert np.array_equal(crops.numpy(), host.backend.crop(frame, QUADS, layout=layout))  # to the bit
        assert crops.shape == (3, 3, 64, 64)
        sizes = [detail for _, name, detail in r.gpu.trace if name == "copy_in"][before:]
        whole = [size for size in sizes if size >= 48 * 128 // 2]
        assert len(whole) == 2 * (1 + (layout == "nv12"))  # each call: once a plane, though there were several batches
    assert len(library.opened) == 1 and library.opened[0].network
    assert {name for _, name, _ in r.gpu.trace} >= {"crop_resize"}
    finished(r, recognizer)
    assert library.opened[0].closed == 1


@pytest.mark.parametrize("kind", ["interface", "dlpack", "address"])
def test_a_frame_on_the_gpu_is_read_where_it_is(opened, host, nv12, kind):
    r, recognizer, _ = opened()
    array = DeviceArray(r.gpu, r.cuda, nv12, pad=64)  # written by a stream of its own, which must be waited for
    given = {
        "interface": lambda: Interface(array),
        "dlpack": lambda: DLPack(array, code=1, bits=8, strides=(array.row, 1)),
        "address": lambda: device_array.DeviceArray(array.address, nv12.shape, (array.row, 1), stream=array.stream),
    }[kind]()
    words = recognizer.read_quads(given, QUADS, "nv12")
    assert texts(words) == texts(host.read_quads(nv12, QUADS, "nv12"))
    assert not [size for _, name, size in r.gpu.trace if name in ("copy_in", "copy_out") and size >= 48 * 128]
    assert {detail[2] for _, name, detail in r.gpu.trace if name == "crop_resize"} >= {array.address}
    finished(r, recognizer, array)


def test_two_planes_with_pitches_of_their_own(opened, host, nv12):
    r, recognizer, _ = opened()
    luma, chroma = DeviceArray(r.gpu, r.cuda, nv12[:48], pad=384), DeviceArray(r.gpu, r.cuda, nv12[48:], pad=128)
    want = host.read_quads(nv12, QUADS, "nv12", full_range=True)
    pair = Interface(luma), Interface(chroma)
    assert texts(recognizer.read_quads(pair, QUADS, "nv12", full_range=True)) == texts(want)
    like_decoders = pitched(luma, (48, 128, 1)), pitched(chroma, (24, 64, 2))
    assert texts(recognizer.read_quads(like_decoders, QUADS, "nv12", full_range=True)) == texts(want)
    finished(r, recognizer, luma, chroma)


def test_words_of_several_frames_share_batches(opened, host, nv12):
    r, recognizer, _ = opened()
    array = DeviceArray(r.gpu, r.cuda, nv12)
    other = np.random.default_rng(9).integers(0, 256, (40, 100, 3), dtype=np.uint8)
    asked = [
        FrameQuads(Interface(array), QUADS[:2], "nv12"),
        FrameQuads(other, [], "bgr"),
        FrameQuads(other, QUADS[1:2], "bgr"),
    ]
    r.trt.enqueued.clear()
    words = recognizer.read_frames(asked)
    assert {rows for stage, rows in r.trt.enqueued if stage == "image"} == {4}  # three, padded
    assert [texts(w) for w in words] == [
        texts(host.read_quads(nv12, QUADS[:2], "nv12")), [], texts(host.read_quads(other, QUADS[1:2], "bgr"))
    ]  # fmt: skip
    finished(r, recognizer, array)


def test_the_graph_is_replayed_without_the_hosts_pixels(opened, nv12):
    r, recognizer, _ = opened()
    for _ in range(3):
        first = recognizer.read_quads(nv12, QUADS[:2], "nv12")
    captured = r.gpu.calls["begin_capture"]
    assert recognizer.read_quads(nv12, QUADS[:2], "nv12") == first
    assert r.gpu.calls["begin_capture"] == captured
    pixels = recognizer.backend.crop(nv12, QUADS[:2], layout="nv12").numpy()
    assert [w.text for w in recognizer.read_pixels(pixels)] == [w.text for w in first]  # and the two ways do not mix
    assert recognizer.read_quads(nv12, QUADS[:2], "nv12") == first
    finished(r, recognizer)


def test_quads_on_the_gpu(opened, host, nv12):
    r, recognizer, _ = opened()
    corners = DeviceArray(r.gpu, r.cuda, np.array(QUADS, np.float32))
    want = host.read_quads(nv12, QUADS, "nv12", turn=False)
    assert texts(recognizer.read_quads(nv12, Interface(corners), "nv12")) == texts(want)
    finished(r, recognizer, corners)


def test_the_best_shot_and_the_thumbnail_are_all_that_comes_to_the_host(opened, host, nv12):
    r, recognizer, _ = opened()
    array = DeviceArray(r.gpu, r.cuda, nv12, pad=32)
    frame = Interface(array)
    for quad in [*QUADS, [[-5, -8], [60, -2], [60, 20], [-5, 20]], [[30, 30], [90, 30], [90, 60], [30, 60]]]:
        got, want = recognizer.crop(frame, quad, "nv12"), host.crop(nv12, quad, "nv12")
        assert np.array_equal(got, want)
    r.gpu.trace.clear()
    recognizer.crop(frame, QUADS[1], "nv12")  # 25 rows of 48
    assert sum(size for _, name, size in r.gpu.trace if name == "copy_out") < 0.75 * array.row * 72
    for colour in (False, True):
        got = recognizer.thumbnail(frame, "nv12", 64, colour=colour)
        want = thumbnail(nv12, (24, 64), "nv12", colour=colour)
        assert np.array_equal(got, want.transpose(1, 2, 0) if colour else want[0])
        assert np.array_equal(host.thumbnail(nv12, "nv12", 64, colour=colour), got)
    finished(r, recognizer, array)


def test_without_the_kernels_host_frames_are_cut_on_the_host_which_is_said_once(opened, host, nv12):
    error = DeviceError("this GPU is a 7.5, the library was built for: 80 90a")
    r, recognizer, library = opened(error=error)
    with pytest.warns(RuntimeWarning, match="cut on the host, not by the compiled kernels: this GPU is a 7.5"):
        words = recognizer.read_quads(nv12, QUADS, "nv12")
    assert texts(words) == texts(host.read_quads(nv12, QUADS, "nv12"))
    array = DeviceArray(r.gpu, r.cuda, nv12)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert texts(recognizer.read_quads(nv12, QUADS, "nv12")) == texts(words)
        for call in (
            lambda: recognizer.read_quads(Interface(array), QUADS, "nv12"),
            lambda: recognizer.thumbnail(Interface(array), "nv12"),
        ):
            with pytest.raises(
                BackendError, match="a frame on the GPU needs the compiled kernels: this GPU is"
            ) as told:
                call()
            assert "\n" not in str(told.value)
        assert recognizer.thumbnail(nv12, "nv12", 64).shape == (36 * 64 // 96, 64)
        assert np.array_equal(recognizer.crop(Interface(array), QUADS[0], "nv12"), host.crop(nv12, QUADS[0], "nv12"))
    assert not library.opened
    finished(r, recognizer, array)


def odd(typestr="|u1", shape=(72, 128), offset=0, address=None, **interface):
    """Makes a frame that is odd in one respect, of an address where there is room for a good one."""

    class Odd:
        def __init__(self, at):
            data = (at + offset if address is None else address, False)
            named = {"version": 3, "stream": None, "strides": None, "shape": shape, "typestr": typestr, "data": data}
            self.__cuda_array_interface__ = {**named, **interface}

    return Odd


BAD = [
    (odd("<u2"), "nv12", ImageError, r"uint16: 10- and 16-bit frames \(P010"),
    (odd("<f4"), "nv12", ImageError, "expected a uint8 array on the GPU for nv12, got a float32 array"),
    (odd(shape=(48, 42, 3), strides=(128, 1, 42)), "rgb", LayoutError, "in one piece"),
    (odd(offset=71 * 128, strides=(-128, 1)), "nv12", LayoutError, "one under"),
    (odd(shape=(72, 127), strides=(128, 1)), "nv12", ShapeError, "nv12 has even"),
    (odd(shape=(70, 128)), "nv12", ShapeError, r"height \* 3 / 2"),
    (odd(address=77), "nv12", ImageError, "on no GPU"),
    (odd(address=0), "nv12", ImageError, "address 0"),
    (odd(stream=0), "nv12", ImageError, "its stream is 0"),
    (odd(strides=(1,)), "nv12", ImageError, "2 dimensions and 1"),
    (odd(mask=1), "nv12", ImageError, "masked"),
    (lambda at: (odd(shape=(48, 128))(at), np.zeros((24, 128), np.uint8)), "nv12", ImageError, "both on"),
    (lambda at: "frame.png", "rgb", ImageError, "frame: a str, expected uint8"),
    (lambda at: np.zeros((9, 9)), "rgb", ImageError, "uint8 numpy array for rgb"),
    (lambda at: np.zeros((9, 9, 3), np.uint16), "rgb", ImageError, "P016"),
    (lambda at: np.zeros((9, 9, 3), np.uint8), "yuv", Clip4StrError, "layout is 'rgb', 'bgr' or 'nv12'"),
]


def test_what_is_no_frame_is_refused_in_one_line_and_the_next_is_read(opened, host, nv12):
    r, recognizer, _ = opened()
    array = DeviceArray(r.gpu, r.cuda, nv12)
    for make, layout, error, message in BAD:
        with pytest.raises(error, match=message) as told:
            recognizer.read_quads(make(array.address), QUADS, layout)
        assert "\n" not in str(told.value)
    with pytest.raises(ShapeError, match=r"quad 1 of 2: .*128x48"):
        recognizer.read_quads(Interface(array), [QUADS[0], [[900, 5], [960, 5], [960, 30], [900, 30]]], "nv12")
    with pytest.raises(Clip4StrError, match="matrix is"):
        recognizer.read_quads(Interface(array), QUADS, "nv12", matrix="bt2020")
    assert recognizer.read_quads(Interface(array), [], "nv12") == []
    words = recognizer.read_quads(Interface(array), QUADS, "nv12")
    assert texts(words) == texts(host.read_quads(nv12, QUADS, "nv12"))
    finished(r, recognizer, array)


def test_out_of_memory_for_a_frame_is_survived(opened, host, nv12):
    r, recognizer, _ = opened()
    want = recognizer.read_quads(nv12, QUADS, "nv12")
    large = np.zeros((2000, 1000, 3), np.uint8)
    r.gpu.fail("allocate")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        recognizer.read_quads(large, [[[1, 1], [60, 1], [60, 30], [1, 30]]])
    assert texts(recognizer.read_quads(nv12, QUADS, "nv12")) == texts(want)
    finished(r, recognizer)


def test_through_tritons_interpreter_and_the_compiled_library(rig, engine_bundle, monkeypatch, tmp_path):
    """The packaged network: the kernel computes what the host does, and the real library, on a stand-in for libcuda,
    takes the very launches."""
    pytest.importorskip("triton")
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "kernels")
    import compiled_kernels

    r = rig()
    with compiled_kernels.opened(monkeypatch) as real:
        monkeypatch.setenv("FAKE_CUDA_LOG", str(tmp_path / "launches"))

        def beside(name, **arguments):
            getattr(real, name)(**arguments)

        install(monkeypatch, r.gpu, implementation="triton", beside=beside)
        r.cuda = FakeCuda(r.gpu)
        bundle = engine_bundle(PACKAGED)
        recognizer, host = Recognizer.load(bundle, "tensorrt"), Recognizer.load(PACKAGED, "onnxruntime", threads=1)
        frame = np.random.default_rng(5).integers(0, 256, (48 * 3 // 2, 128), dtype=np.uint8)
        array = DeviceArray(r.gpu, r.cuda, frame, pad=128)
        got = recognizer.backend.crop(Interface(array), QUADS[:1], layout="nv12")
        assert np.array_equal(got.numpy(), host.backend.crop(frame, QUADS[:1], layout="nv12"))
        small = recognizer.thumbnail(Interface(array), "nv12", 16)
        assert np.array_equal(small, thumbnail(frame, (6, 16), "nv12")[0])
        names = [line.split()[0] for line in (tmp_path / "launches").read_text().splitlines()]
        assert names[-2:] == ["crop_resize_kernel", "thumbnail_kernel"]
        finished(r, recognizer, array)
