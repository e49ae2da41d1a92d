"""Recognizer over a real bundle: the golden tiny network on ONNX Runtime."""

import json
import shutil
import subprocess
import sys
import threading

import numpy as np
import pytest
from PIL import Image

from clip4str.runtime import BackendError, BundleError, CharsetError, Decoding, ImageError, Recognizer, UsageError


@pytest.fixture(scope="module")
def recognizer(tiny_bundle):
    return Recognizer.load(tiny_bundle, threads=1)


def test_reads_the_published_words(recognizer, golden):
    want = golden("tiny")
    words = recognizer.read(list(want["images"]))
    assert [w.text for w in words] == want["text"].tolist()
    np.testing.assert_allclose([w.confidence for w in words], want["confidence"], rtol=1e-2, atol=1e-6)
    for word in words:
        assert len(word.char_confidences) == len(word.text)
        assert word.confidence <= min((*word.char_confidences, 1)) + 1e-6


def test_an_answer_does_not_depend_on_its_batch(recognizer, tiny_bundle, golden):
    images = list(golden("tiny")["images"])
    together = recognizer.read(images)
    one_by_one = Recognizer.load(tiny_bundle, threads=1, batch_size=1)
    assert [w.text for w in one_by_one.read(images)] == [w.text for w in together]
    backwards = recognizer.read(images[::-1])[::-1]
    assert [w.text for w in backwards] == [w.text for w in together]


def test_image_kinds_and_stats(recognizer, golden, tmp_path):
    array = golden("tiny")["images"][1]
    path = tmp_path / "word.png"
    Image.fromarray(array).save(path)
    recognizer.reset_stats()
    words = recognizer.read([array, Image.fromarray(array), path, str(path), path.read_bytes()])
    assert len({w.text for w in words}) == 1
    assert recognizer.stats.images == 5 and recognizer.stats.batches == 1
    assert recognizer.read([]) == []
    assert recognizer.read(image for image in [array])[0] == recognizer.read([array])[0]


def test_one_recognizer_in_many_threads(recognizer, golden):
    images = golden("tiny")["images"]
    alone = [w.text for w in recognizer.read(list(images))]
    recognizer.reset_stats()
    found = {}

    def work(i):
        found[i] = [w.text for w in recognizer.read(list(np.roll(images, i, axis=0)))]

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(found[i] == alone[-i:] + alone[:-i] for i in range(6))
    assert recognizer.stats.images == 6 * len(images)


def test_the_visual_branch_alone_and_other_modes(tiny_bundle, golden):
    want = golden("tiny")
    refined = Recognizer.load(tiny_bundle, threads=1, decoding=Decoding(branch="visual"))
    assert [w.text for w in refined.read(list(want["images"]))] == want["visual_refined"].tolist()
    plain = Recognizer.load(tiny_bundle, threads=1, decoding=Decoding(branch="visual", refine=0))
    assert [w.text for w in plain.read(list(want["images"]))] == want["visual_ar"].tolist()
    assert plain.stats.text_calls == 0 and plain.stats.cross_passes == 0


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda m: m["config"].update(image_size=[64, 128]), "pixels is .* the manifest means"),
        (lambda m: m["config"].update(context=20), "text_kv is|bpe is"),
        (lambda m: m.update(charset=m["charset"][:40]), "logits is .* the manifest means"),
        (lambda m: m["stages"].update(visual="cross.onnx"), "visual_kv is None"),
        (lambda m: m["config"].update(steps=40), "visual stage failed in onnxruntime"),
    ],
)
def test_a_manifest_that_is_not_of_its_graphs(change, message, tiny_bundle, tmp_path, golden):
    bundle = tmp_path / "bundle"
    shutil.copytree(tiny_bundle, bundle)
    manifest = json.loads((bundle / "manifest.json").read_text())
    change(manifest)
    (bundle / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises((BundleError, BackendError), match=message) as caught:
        Recognizer.load(bundle, threads=1).read(list(golden("tiny")["images"][:2]))
    assert "\n" not in str(caught.value)


def test_wrong_arguments(tiny_bundle, recognizer, golden):
    image = golden("tiny")["images"][0]
    with pytest.raises(BackendError, match="unknown backend 'tflite'"):
        Recognizer.load(tiny_bundle, "tflite")
    with pytest.raises(BackendError, match=r"it has: .*CPUExecutionProvider"):
        Recognizer.load(tiny_bundle, providers=["Rocket"])
    Recognizer.load(tiny_bundle, providers=["cpu"], verify=False)
    for wrong in ({"threads": 0}, {"threads": 10**11}, {"batch_size": 0}, {"cache_size": -1}):
        with pytest.raises(UsageError):
            Recognizer.load(tiny_bundle, **wrong)
    for charset in ("äöü", ""):
        with pytest.raises(CharsetError):
            Recognizer.load(tiny_bundle, charset_test=charset)
    for single in (image, "word.png", b"bytes"):
        with pytest.raises(UsageError, match=r"read\(\[image\]\)"):
            recognizer.read(single)
    with pytest.raises(ImageError, match=r"expected float32 \(N, 3, 64, 64\)"):
        recognizer.read_pixels(np.zeros((1, 3, 32, 128), np.float32))
    with pytest.raises(ImageError):
        recognizer.read([image, b"broken"])
    assert recognizer.read([image])[0].text == golden("tiny")["text"][0], "usable after every error"


def test_warm_up_reads_and_counts_nothing(tiny_bundle, golden, monkeypatch):
    recognizer = Recognizer.load(tiny_bundle, "onnxruntime", threads=1, batch_size=4)
    shapes, inner = [], recognizer.backend.image
    monkeypatch.setattr(recognizer.backend, "image", lambda pixels: (shapes.append(len(pixels)), inner(pixels))[1])
    recognizer.warm_up()
    assert shapes == [4, 1]
    recognizer.warm_up([2, 3, 2])
    assert shapes == [4, 1, 3, 2] and recognizer.stats.images == 0
    assert [w.text for w in recognizer.read(list(golden("tiny")["images"][:3]))] == golden("tiny")["text"][:3].tolist()


@pytest.mark.parametrize("sizes", [0, [0], [5], "4", [True], [1.5], [None], -1])
def test_sizes_that_cannot_be_warmed_up_for(recognizer_of_four, sizes):
    with pytest.raises(UsageError, match="batches to warm up for are of 1 to 4 images, not"):
        recognizer_of_four.warm_up(sizes)


@pytest.fixture(scope="module")
def recognizer_of_four(tiny_bundle):
    return Recognizer.load(tiny_bundle, "onnxruntime", threads=1, batch_size=4)


AFTER_WARM_UP = """
import sys
from PIL import Image
from clip4str.runtime import Recognizer, images

recognizer = Recognizer.load(sys.argv[1], sys.argv[2], threads=1)
recognizer.warm_up([1])
print(images._formats.cache_info().currsize, Image._initialized)
before = set(sys.modules)
recognizer.read([sys.argv[3]])
print(*sorted(set(sys.modules) - before))
"""


@pytest.mark.parametrize("backend", ["onnxruntime", "torch"])
def test_the_first_file_after_warm_up_loads_nothing_any_more(
    backend, tiny_bundle, golden_checkpoint, few_crops, tmp_path
):
    """In a process of its own, where nothing has read a file yet."""
    network = tiny_bundle if backend == "onnxruntime" else golden_checkpoint("tiny")
    command = [sys.executable, "-c", AFTER_WARM_UP, network, backend, next(few_crops.glob("*.jpg"))]
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, cwd=tmp_path)
    assert done.stdout.splitlines() == ["1 2", ""], done.stdout + done.stderr
