"""What read_pixels takes on the torch backend, and what it refuses."""

import threading

import numpy as np
import pytest
import torch

from clip4str.core.errors import Clip4StrError, ImageError, ShapeError
from clip4str.runtime import Recognizer
from clip4str.runtime.backends.pytorch import inputs


@pytest.fixture(scope="module")
def recognizer(golden_checkpoint):
    return Recognizer.load(golden_checkpoint("tiny"))


@pytest.fixture(scope="module")
def pixels(golden):
    images = golden("tiny")["images"][:6].astype(np.float32)
    return np.ascontiguousarray(((images / 255 - 0.5) / 0.5).transpose(0, 3, 1, 2))


class DlpackAlone:
    def __init__(self, tensor):
        self.tensor = tensor

    def __dlpack__(self, **how):
        return self.tensor.__dlpack__(**how)

    def __dlpack_device__(self):
        return self.tensor.__dlpack_device__()


def test_kinds_of_pixels(recognizer, pixels):
    want = recognizer.read_pixels(pixels)
    tensor = torch.from_numpy(pixels)
    read_only = pixels.copy()
    read_only.flags.writeable = False
    channels_last = tensor.contiguous(memory_format=torch.channels_last)
    for kind in (tensor, DlpackAlone(tensor), tensor.clone().requires_grad_(), channels_last, read_only,
                 np.asfortranarray(pixels)):  # fmt: skip
        assert recognizer.read_pixels(kind) == want
    half = [w.text for w in recognizer.read_pixels(tensor.half())]
    assert sum(a == b.text for a, b in zip(half, want)) >= 5, "pixels rounded, a random network"
    backwards = recognizer.read_pixels(pixels[::-1])
    assert [w.text for w in backwards] == [w.text for w in want[::-1]]
    every_other = recognizer.read_pixels(tensor[::2])
    assert [w.text for w in every_other] == [w.text for w in want[::2]]


def test_nothing_is_copied(pixels):
    size, tensor = pixels.shape[2:], torch.from_numpy(pixels)
    for kind in (pixels, tensor, DlpackAlone(tensor)):
        assert inputs.accept_pixels(kind, size, torch.device("cpu")).data_ptr() == tensor.data_ptr()


def test_empty_and_large_batches(recognizer, pixels, golden):
    assert recognizer.read_pixels(pixels[:0]) == [] and recognizer.read([]) == []
    assert recognizer.read_pixels(torch.from_numpy(pixels)[:0]) == []
    many = np.tile(pixels, (6, 1, 1, 1))[:33]
    words = recognizer.read_pixels(many)
    assert [w.text for w in words] == (golden("tiny")["text"][:6].tolist() * 6)[:33]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda p: p.astype(np.float64), r"float64 .* expected float32 or float16 \(N, 3, 64, 64\)"),
        (lambda p: (p * 127).astype(np.uint8), "uint8"),
        (lambda p: p[:, :, :32], r"\(6, 3, 32, 64\)"),
        (lambda p: p[0], r"\(3, 64, 64\)"),
        (lambda p: p.transpose(0, 2, 3, 1), r"\(6, 64, 64, 3\)"),
        (lambda p: torch.empty(1, 3, 64, 64, device="meta"), "are on meta, the recogniser is on cpu"),
        (lambda p: torch.from_numpy(p).to(torch.bfloat16), "bfloat16"),
        (lambda p: torch.from_numpy(p).to_sparse(), "are sparse_coo, expected a dense tensor"),
        (lambda p: p.tolist(), "pixels: a list, expected a numpy array"),
        (lambda p: None, "a NoneType"),
        (lambda p: p.astype(">f4"), "cannot be read"),
        (lambda p: p.astype(object), "cannot be read"),
        (lambda p: _Interface({}), "_Interface that cannot be read"),
    ],
)
def test_what_is_refused(change, message, recognizer, pixels, golden):
    with pytest.raises(ImageError, match=message) as caught:
        recognizer.read_pixels(change(pixels))
    assert "\n" not in str(caught.value)
    assert recognizer.read_pixels(pixels[:1])[0].text == golden("tiny")["text"][0], "usable after it"


class _Interface:
    def __init__(self, interface):
        self.__cuda_array_interface__ = interface


def test_the_stream_of_a_cuda_array_is_waited_for(monkeypatch, pixels):
    waited = []

    class Current:
        def wait_stream(self, stream):
            waited.append(stream)

    monkeypatch.setattr(torch.cuda, "device", lambda device: torch.no_grad())
    monkeypatch.setattr(torch.cuda, "current_stream", Current)
    monkeypatch.setattr(torch.cuda, "default_stream", lambda: "default")
    monkeypatch.setattr(torch.cuda, "ExternalStream", lambda handle: f"stream {handle}")
    monkeypatch.setattr(torch, "as_tensor", lambda array, device: torch.from_numpy(pixels))
    for stream in (None, 1, 2, 12345):
        inputs.as_tensor("pixels", _Interface({"stream": stream}), torch.device("cuda", 0))
    assert waited == ["default", "stream 2", "stream 12345"]
    for stream in (0, True, "7"):
        with pytest.raises(ImageError, match="its stream is"):
            inputs.as_tensor("pixels", _Interface({"stream": stream}), torch.device("cuda", 0))


def test_one_recognizer_in_many_threads(recognizer, pixels):
    alone = [w.text for w in recognizer.read_pixels(pixels)]
    recognizer.reset_stats()
    found = {}

    def work(i):
        found[i] = [w.text for w in recognizer.read_pixels(np.roll(pixels, i, axis=0))]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found[i] == alone[-i:] + alone[:-i] for i in range(5))
    assert recognizer.stats.images == 5 * len(pixels)


@pytest.mark.parametrize("layout", ["rgb", "bgr"])
def test_boxes_of_a_frame_are_read_like_their_crops(layout, recognizer, golden):
    images = golden("tiny")["images"][:4]
    assert images.shape[1:] == (64, 64, 3)
    frame = np.concatenate([*images, images[0] // 2], axis=1)
    boxes = [(0, 0, 64, 64), (64, 0, 128, 64), (130, 3, 190, 60), (10, 5, 300, 62)]
    quads = np.array([[(a, b), (c, b), (c, d), (a, d)] for a, b, c, d in boxes], np.float32)
    want = recognizer.read([frame[b:d, a:c] for a, b, c, d in boxes])
    given = frame if layout == "rgb" else np.ascontiguousarray(frame[:, :, ::-1])
    for kind in (given, torch.from_numpy(given), DlpackAlone(torch.from_numpy(given))):
        assert recognizer.read_boxes(kind, quads, layout) == want
    assert recognizer.read_boxes(given, torch.from_numpy(quads[:2]), layout) == want[:2]
    assert recognizer.read_boxes(given, quads[:0], layout) == []
    for wrong, message in ((given.astype(np.float32), "frame: expected uint8"), ("frame.png", "frame: a str")):
        with pytest.raises(Clip4StrError, match=message):
            recognizer.read_boxes(wrong, quads, layout)
    with pytest.raises(ShapeError, match="quad"):
        recognizer.read_boxes(given, quads * np.nan, layout)


def test_boxes_of_video_frames(recognizer):
    luma = np.random.RandomState(0).randint(16, 236, (96, 128), np.uint8)
    nv12 = np.concatenate([luma, np.full((48, 128), 128, np.uint8)])  # no colour
    quads = np.array([[(8, 8), (100, 8), (100, 40), (8, 40)]], np.float32)
    planes = recognizer.read_boxes((luma, nv12[96:]), quads, "nv12")
    assert recognizer.read_boxes(nv12, quads, "nv12") == planes
    grey = np.clip(np.round((luma.astype(np.float64) - 16) * 255 / 219), 0, 255).astype(np.uint8)
    assert recognizer.read_boxes(np.stack([grey] * 3, axis=2), quads)[0].text == planes[0].text


def test_thumbnails_and_pictures_of_tensors_are_those_of_arrays(recognizer, tiny_bundle):
    onnx = Recognizer.load(tiny_bundle, threads=1)
    nv12 = np.random.RandomState(1).randint(0, 256, (96, 128), np.uint8)
    planes = torch.from_numpy(nv12[:64]), torch.from_numpy(nv12[64:]).unflatten(1, (64, 2))
    quad = [(9, 5), (100, 8), (97, 40), (8, 30)]
    for given in (torch.from_numpy(nv12), planes, DlpackAlone(torch.from_numpy(nv12))):
        assert np.array_equal(recognizer.thumbnail(given, "nv12", 32), onnx.thumbnail(nv12, "nv12", 32))
        colour = recognizer.thumbnail(given, "nv12", 32, colour=True, matrix="bt709")
        assert np.array_equal(colour, onnx.thumbnail(nv12, "nv12", 32, colour=True, matrix="bt709"))
    assert np.array_equal(recognizer.crop(planes, quad, "nv12"), onnx.crop(nv12, quad, "nv12"))
    with pytest.raises(Clip4StrError, match="P010"):
        recognizer.thumbnail(torch.zeros(96, 128, dtype=torch.uint16), "nv12", 32)


def test_the_usual_matrix_is_bt709_from_hd_on(recognizer):
    small, wide = (np.random.RandomState(2).randint(0, 256, shape, np.uint8) for shape in ((96, 128), (24, 1280)))
    quad = [[(2, 2), (50, 2), (50, 14), (2, 14)]]
    for frame, usual, other in ((small, "bt601", "bt709"), (wide, "bt709", "bt601")):
        named, unusual, found = (
            recognizer.backend.crop(frame, quad, layout="nv12", matrix=m) for m in (usual, other, None)
        )
        assert torch.equal(found, named) and not torch.equal(found, unusual)


def test_tensors_are_the_torch_backends(tiny_bundle):
    onnx = Recognizer.load(tiny_bundle, threads=1)
    with pytest.raises(ImageError, match="as a numpy array"):
        onnx.read_pixels(torch.zeros(1, 3, 64, 64))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_not_finite_are_an_error_naming_the_row(recognizer, pixels, value):
    broken = pixels.copy()
    broken[4, 2, 1, 0] = value
    tensor = torch.from_numpy(broken)
    for kind in (broken, tensor, tensor.half(), DlpackAlone(tensor), tensor.clone().requires_grad_()):
        with pytest.raises(ImageError, match=r"pixels\[4\] are not finite") as caught:
            recognizer.read_pixels(kind)
        assert caught.value.index == 4


def test_on_a_gpu_pixels_are_looked_at_only_once_the_output_is_not_finite(recognizer, pixels, monkeypatch):
    """What lies there cannot be looked at without waiting for it."""
    monkeypatch.setattr(inputs, "checked", lambda pixels: pixels)
    broken = torch.from_numpy(pixels.copy())
    broken[4, 2, 1, 0] = torch.nan
    with pytest.raises(ImageError, match=r"pixels\[4\] are not finite"):
        recognizer.read_pixels(broken)
