"""`read` on the TensorRT backend with the compiled kernels: pictures go up as they are, and are resized there."""

from __future__ import annotations

import threading
import warnings
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from fake_gpu import FakeCuda, FakeGpu
from fake_kernels import install
from PIL import Image
from test_trt_failures import forgive

from clip4str.core.errors import BackendError, Clip4StrError, DeviceError
from clip4str.core.packaged import PACKAGED
from clip4str.runtime import Recognizer, staging


@pytest.fixture(scope="module")
def crops(golden, tmp_path_factory):
    """Paths of PNGs, arrays, and what is no picture."""
    folder, random = tmp_path_factory.mktemp("crops"), np.random.default_rng(1)
    images = golden("tiny")["images"]
    for i, image in enumerate(images[:3]):
        Image.fromarray(image).resize((90 - 7 * i, 33 + i)).save(folder / f"{i}.png")
    noise = random.integers(0, 256, (17, 71, 3), dtype=np.uint8)
    encoded = (folder / "2.png").read_bytes()
    return [folder / "0.png", noise, folder / "no.png", str(folder / "1.png"), noise[..., 0], encoded, images[3],
            np.zeros((1, 5, 3), np.uint8), images[4]]  # fmt: skip


@pytest.fixture
def host(tiny_bundle):
    return Recognizer.load(tiny_bundle, backend="onnxruntime", threads=1)


@pytest.fixture
def opened(rig, engine_bundle, monkeypatch):
    """opened(gpu=..., error=..., batch_size=...) -> the rig, a recogniser on it, and the stand-in's class"""

    def make(gpu=None, batch_size=4, threads=2, **how):
        r = rig(gpu=gpu)
        library = install(monkeypatch, r.gpu, **how)
        recognizer = Recognizer.load(engine_bundle(), backend="tensorrt", batch_size=batch_size, threads=threads)
        return r, recognizer, library

    return make


def told(words):
    """Texts and hints, or why there are none."""
    return [(w.text, w.hint) if hasattr(w, "text") else w for w in words]


def each(recognizer, sources):
    return [str(w) if isinstance(w, Exception) else (w.text, w.hint)
            for found in recognizer.read_batches([sources]) for w in found]  # fmt: skip


@pytest.mark.parametrize("integrated", [False, True])
def test_words_of_files_and_arrays_are_the_hosts_and_nothing_else_goes_up(opened, host, crops, integrated):
    r, recognizer, library = opened(FakeGpu(integrated=integrated))
    recognizer.read(crops[:2])  # opens the library, and makes room
    r.gpu.trace.clear()
    for _ in range(3):
        assert told(recognizer.read(crops, "skip")) == told(host.read(crops, "skip"))
    resized = [n for _, name, n in r.gpu.trace if name == "resize"]
    assert sum(resized) == 3 * 7 and max(resized) <= 4
    largest = max((size for _, name, size in r.gpu.trace if name == "copy_in"), default=0)
    assert largest < 4 * 3 * 4 * 64 * 64, "pixels of the network's size, in float32"
    assert len(library.opened) == 1
    recognizer.close()
    r.check_empty()


def test_errors_are_the_hosts(opened, host, crops):
    r, recognizer, _ = opened(batch_size=8)
    assert each(recognizer, crops[:8]) == each(host, crops[:8])
    for call in (recognizer, host):
        with pytest.raises(Clip4StrError, match=r"images\[2\]: .*no.png: no such file") as caught:
            call.read(crops)
        assert caught.value.index == 2
    assert recognizer.read(["nowhere.png"], "skip") == [None] and recognizer.read([]) == []
    recognizer.close()
    r.check_empty()


def test_a_batch_is_decoded_while_the_one_before_it_is_read(opened, host, crops, monkeypatch):
    """The first batch's words come only when the second one's pictures have been decoded and sent."""
    r, recognizer, _ = opened(batch_size=2)
    want = told(host.read(crops, "skip"))
    recognizer.read(crops[:1])
    sent, read, overlapped = threading.Semaphore(0), recognizer.backend.read, []
    send = staging.StagedLoading._send

    def noted(self, before):
        send(self, before)
        sent.release()

    def waits(driver, pixels, stages=None):
        if len(overlapped) < 3:  # the batches that another one follows: sent itself, and the next one meanwhile
            overlapped.append(sent.acquire(timeout=20) and (len(overlapped) > 0 or sent.acquire(timeout=20)))
        return read(driver, pixels, stages)

    monkeypatch.setattr(staging.StagedLoading, "_send", noted)
    monkeypatch.setattr(recognizer.backend, "read", waits)
    assert told(recognizer.read(crops, "skip")) == want
    assert overlapped == [True] * 3
    recognizer.close()
    r.check_empty()


def test_the_switch_and_what_is_missing_lead_to_the_host(opened, host, crops):
    r, recognizer, _ = opened()
    recognizer.backend.resizes = False
    assert told(recognizer.read(crops, "skip")) == told(host.read(crops, "skip"))
    assert "resize" not in {name for _, name, _ in r.gpu.trace}
    recognizer.close()
    r.check_empty()


def test_without_the_kernels_nothing_is_said(opened, host, crops):
    r, recognizer, library = opened(error=DeviceError("this GPU is a 7.5, the library was built for: 80 90a"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert told(recognizer.read(crops, "skip")) == told(host.read(crops, "skip"))
    with pytest.warns(RuntimeWarning, match="frames are cut on the host"):  # which costs more
        recognizer.read_quads(crops[1], [[[1, 1], [60, 1], [60, 12], [1, 12]]])
    assert not library.opened
    recognizer.close()
    r.check_empty()


def test_no_memory_for_pictures_leads_to_the_host(opened, host, crops):
    r, recognizer, _ = opened()
    recognizer.read_quads(crops[1], [[[1, 1], [60, 1], [60, 12], [1, 12]]])  # opens the library
    r.gpu.fail("allocate_host")
    assert told(recognizer.read(crops[:3], "skip")) == told(host.read(crops[:3], "skip"))
    assert [n for _, name, n in r.gpu.trace if name == "resize"] == [1], "the library's trial alone"
    assert told(recognizer.read(crops, "skip")) == told(host.read(crops, "skip"))
    assert sum(n for _, name, n in r.gpu.trace if name == "resize") == 8
    recognizer.close()
    r.check_empty()


CALLS = ("allocate", "allocate_host", "create_stream", "synchronise", "copy_in", "current", "resize", "free",
         "free_host", "destroy_stream")  # fmt: skip


INVALID, FULL = "CUDA_ERROR_INVALID_VALUE", "CUDA_ERROR_OUT_OF_MEMORY"


@pytest.mark.parametrize(("error", "warm"), [(INVALID, False), (INVALID, True), (FULL, False)])
def test_every_call_may_fail_and_the_next_read_is_right(opened, host, crops, error, warm):
    """From opening the library on, and (warm) from the second read on, where the engines' own calls fail as well."""
    want, failed, number = told(host.read(crops[:3], "skip")), Counter(), 0
    r, first, _ = opened(batch_size=2)
    first.close()
    for call in CALLS:
        for number in [*range(1, 9), *range(9, 200, 4)]:
            recognizer = Recognizer.load(first.bundle.folder, "tensorrt", batch_size=2, threads=2, verify=False)
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)  # of smaller batches, stages without graphs
                if warm:
                    recognizer.read(crops[:3], "skip")
                before = r.gpu.calls[call]
                r.gpu.fail(call, number, error)
                try:
                    assert told(recognizer.read(crops[:3], "skip")) == want
                except BackendError as caught:
                    failed[call] += 1
                    assert "\n" not in str(caught)
                reached = r.gpu.calls[call] >= before + number
                r.gpu.faults.clear()
                assert told(recognizer.read(crops[:3], "skip")) == want, (call, number)
            recognizer.close()
            # What fails while giving back is nobody's concern, but must not stop the rest.
            forgive(r, call) if call in ("free", "free_host", "destroy_stream", "current") else r.check_empty()
            if not reached:
                break
    if error == INVALID:
        assert failed["synchronise"] and failed["current"] and failed["copy_in"] and (failed["resize"] or not warm)


def test_readers_in_threads_and_a_close_in_between(opened, host, crops):
    r, recognizer, _ = opened(batch_size=2)
    want, wrong = told(host.read(crops, "skip")), []

    def read():
        for _ in range(4):
            try:
                if told(recognizer.read(crops, "skip")) != want:
                    wrong.append("other words")
            except BackendError as error:
                if "closed" not in str(error):
                    wrong.append(str(error))

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    threads[0].join(2)
    recognizer.close()
    for thread in threads:
        thread.join()
    assert not wrong
    with pytest.raises(BackendError, match="this recogniser was closed"):
        recognizer.read(crops[:1])
    r.check_empty()


def test_dropping_the_last_reference_gives_everything_back(opened, crops):
    r, recognizer, _ = opened()
    recognizer.read(crops, "skip")
    del recognizer
    r.check_empty()
    assert not [t for t in threading.enumerate() if t.name.startswith("clip4str-decode")]


def test_through_tritons_interpreter_and_the_compiled_library(rig, engine_bundle, monkeypatch, tmp_path):
    """The packaged network: the kernel computes what the host does, and the real library, on a stand-in for libcuda,
    takes the very launches."""
    pytest.importorskip("triton")
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "kernels")
    import compiled_kernels

    r, sources = rig(), sorted((Path(__file__).parents[3] / "export/sample_crops").glob("*.jpg"))[:2]
    with compiled_kernels.opened(monkeypatch) as real:
        monkeypatch.setenv("FAKE_CUDA_LOG", str(tmp_path / "launches"))
        install(monkeypatch, r.gpu, implementation="triton", beside=lambda name, **how: getattr(real, name)(**how))
        r.cuda = FakeCuda(r.gpu)
        recognizer = Recognizer.load(engine_bundle(PACKAGED), "tensorrt", threads=1)
        host = Recognizer.load(PACKAGED, "onnxruntime", threads=1)
        loading = recognizer.backend.load(sources)
        assert np.array_equal(loading.result()[0].numpy(), host.prepare(sources))
        loading.close()
        assert told(recognizer.read(sources[:1])) == told(host.read(sources[:1]))
        names = [line.split()[0] for line in (tmp_path / "launches").read_text().splitlines()]
        assert names == ["crop_resize_kernel"] + ["resize_kernel"] * 3  # the library's trial first
        recognizer.close()
        r.cuda.close()
        r.check_empty()
