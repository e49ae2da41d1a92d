"""`read` on the torch backend where a GPU resizes: here the same code on a CPU, over graphs that are replayed by
calling, with the operator's reference or through Triton's interpreter."""

import threading
from functools import partial

import numpy as np
import pytest
import torch
from device import DEVICE, ON_GPU
from PIL import Image
from torch_networks import Replayed

from clip4str.core.errors import BackendError, ImageError
from clip4str.core.packaged import PACKAGED
from clip4str.kernels import resize as operator
from clip4str.runtime import Recognizer
from clip4str.runtime.backends.pytorch import backend as torch_backend
from clip4str.runtime.backends.pytorch import pictures
from clip4str.runtime.images import prepare


@pytest.fixture
def crops(golden, tmp_path):
    """Files, arrays, pictures of odd sizes, and what is none."""
    images = golden("tiny")["images"]
    for i, image in enumerate(images[:4]):
        Image.fromarray(image).resize((90 - 7 * i, 33 + i)).save(tmp_path / f"{i}.png")
    return [*sorted(tmp_path.glob("*.png")), tmp_path / "no.png", *images, Image.fromarray(images[1]).convert("L"),
            images[2][:, :9], np.zeros((1, 4, 3), np.uint8)]  # fmt: skip


def opened(golden_checkpoint, on_device=True, graphs=False, **how):
    recognizer = Recognizer.load(golden_checkpoint("tiny"), "torch", device=DEVICE.type, **how)
    backend = recognizer.backend
    if graphs and not ON_GPU:
        backend._layer = Replayed()
        backend._runner = backend._make_runner(backend.program, backend.batch_size)
    backend.resizes = on_device
    return recognizer


def told(words):
    return [None if w is None else (w.text, w.confidence, w.hint) for w in words]


@pytest.mark.gpu
@pytest.mark.parametrize("graphs", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_words_are_those_of_pictures_resized_on_the_host(golden_checkpoint, crops, graphs, dtype):
    ours = opened(golden_checkpoint, graphs=graphs, batch_size=4, dtype=dtype)
    host = opened(golden_checkpoint, on_device=False, graphs=graphs, batch_size=4, dtype=dtype)
    assert ours.backend.load(crops[:1]).__class__ is not host.backend.load(crops[:1]).__class__
    for _ in range(2):
        assert told(ours.read(crops, "skip")) == told(host.read(crops, "skip"))
    assert list(map(str, ours.read_each(crops[4:5]))) == list(map(str, host.read_each(crops[4:5])))
    with pytest.raises(ImageError, match=r"images\[4\]: .*no.png: no such file"):
        ours.read(crops)


@pytest.mark.gpu
def test_golden_words(golden, golden_checkpoint):
    """What the published code reads of arrays, and of files that hold the same pixels."""
    data, graphs = golden("tiny"), not ON_GPU
    recognizer = opened(golden_checkpoint, graphs=graphs, dtype="float32")
    assert [w.text for w in recognizer.read(list(data["images"]))] == data["text"].tolist()


@pytest.mark.gpu
@pytest.mark.parametrize("normalization", ["half", "clip"])
def test_pixels_are_prepares_to_the_bit_through_the_kernel(golden_checkpoint, crops, monkeypatch, normalization):
    pytest.importorskip("triton")
    kernel = partial(operator.resize, implementation="triton")
    monkeypatch.setattr(operator, "resize", kernel)
    recognizer, sources = opened(golden_checkpoint), crops[:2]
    loading = recognizer.backend.load(sources, normalization)
    pixels, found = loading.result()
    want = torch.from_numpy(prepare(sources, recognizer.manifest.image_size, normalization))
    assert torch.equal(pixels.cpu(), want.to(pixels.dtype)) and found == [(90, 33), (83, 34)]
    loading.close()


@pytest.mark.gpu
def test_the_packaged_network_reads_the_sample_crops(few_crops):
    sources = sorted(few_crops.iterdir())
    words = []
    for on_device in (True, False):
        recognizer = Recognizer.load(PACKAGED, "torch", device=DEVICE.type, batch_size=3)
        recognizer.backend.resizes = on_device
        words.append(told(recognizer.read(sources)))
        recognizer.close()
    assert words[0] == words[1] and all(text for text, _, _ in words[0])


def test_warming_up_makes_what_pictures_need(golden_checkpoint, crops, monkeypatch):
    made, slot = [], torch_backend.PictureSlot
    monkeypatch.setattr(torch_backend, "PictureSlot", lambda *a, **how: made.append(slot(*a, **how)) or made[-1])
    recognizer, resized, kernel = opened(golden_checkpoint, batch_size=4), [], operator.resize
    monkeypatch.setattr(operator, "resize", lambda *a, **how: resized.append(1) or kernel(*a, **how))
    recognizer.warm_up([1])
    assert resized == [1] and [slot.block.rows for slot in made] == [4]
    recognizer.read(crops[:2])
    assert len(made) == 1
    recognizer.close()


def test_a_cpu_resizes_as_ever(golden_checkpoint, crops):
    recognizer = Recognizer.load(golden_checkpoint("tiny"), "torch", device="cpu")
    recognizer.read(crops[:2])
    assert not recognizer.backend.resizes and recognizer.backend._stager is None


def test_no_memory_for_pictures_leads_to_the_host(golden_checkpoint, crops, monkeypatch):
    recognizer = opened(golden_checkpoint)
    want = told(recognizer.read(crops, "skip"))

    def full(*args, **how):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    recognizer.close()
    monkeypatch.setattr(torch_backend, "PictureSlot", full)
    assert told(recognizer.read(crops, "skip")) == want


def test_what_fails_there_is_one_line_and_the_next_read_is_right(golden_checkpoint, crops, monkeypatch):
    recognizer = opened(golden_checkpoint, batch_size=2)
    want = told(recognizer.read(crops, "skip"))

    def fail(*_):
        raise RuntimeError("CUDA error: an illegal\nmemory access")

    for place, name in ((pictures.PictureSlot, "_send"), (pictures.Block, "begin")):
        with monkeypatch.context() as patched:
            patched.setattr(place, name, fail)
            with pytest.raises(BackendError, match=r"failed in torch \(CUDA error: an illegal") as caught:
                recognizer.read(crops)
            assert "\n" not in str(caught.value)
        assert told(recognizer.read(crops, "skip")) == want


def test_threads_share_it_and_close_ends_its_own(golden_checkpoint, crops):
    others = set(threading.enumerate())
    recognizer = opened(golden_checkpoint, batch_size=2, threads=2)
    want, got = told(recognizer.read(crops, "skip")), []
    threads = [threading.Thread(target=lambda: got.append(told(recognizer.read(crops, "skip")))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert got == [want] * 3
    recognizer.close()
    assert set(threading.enumerate()) <= others
    assert told(recognizer.read(crops, "skip")) == want
    recognizer.close()
