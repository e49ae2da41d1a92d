"""Engines of a network with a draft head, on a fake GPU: the image engine's third output, and the words it leads to."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
import torch
from fake_gpu import FakeGpu
from trt_rig import driver_of

from clip4str.core.errors import BundleError
from clip4str.core.reading import Decoding
from clip4str.export.bundles import build_bundle
from clip4str.export.parity import compare
from clip4str.model import load_checkpoint, save_checkpoint
from clip4str.model.draft import DraftHead
from clip4str.runtime.backends.ort import OrtBackend
from clip4str.runtime.bundle import Bundle
from clip4str.training.draft import with_head

FRAMES = 8  # a column of the golden tiny network, which has four


@pytest.fixture(scope="session")
def drafting(golden_checkpoint, few_crops, tmp_path_factory):
    """The golden tiny network with a head of random weights."""
    model, folder = load_checkpoint(golden_checkpoint("tiny")), tmp_path_factory.mktemp("drafting")
    torch.manual_seed(0)
    save_checkpoint(with_head(model, DraftHead(replace(model.config, draft_frames=FRAMES))), folder / "net.safetensors")
    return build_bundle(folder / "net.safetensors", folder / "bundle", min_agreement=0, sample_folder=few_crops)


@pytest.mark.parametrize("integrated", [False, True], ids=["discrete", "integrated"])
def test_drafts_are_those_of_onnxruntime_for_any_batch(rig, engine_bundle, drafting, images, integrated):
    r = rig(FakeGpu(integrated=integrated))
    backend, _ = r.open(engine_bundle(drafting))
    stages = OrtBackend(Bundle.open(drafting), threads=1)
    for n in (1, 3, 8, 3):
        held = backend.image(images[:n])
        assert len(held) == 3 and held[2].dtype == np.int32 and held[2].shape == (n, 4 * FRAMES)
        assert np.array_equal(held[2], stages.image(images[:n])[2])
    first = backend.image(images[:2])[2]
    backend.image(images[2:4])
    assert np.array_equal(first, stages.image(images[:2])[2]), "the next batch leaves it alone"
    backend.close()
    r.check_empty()


@pytest.mark.parametrize("how", [Decoding(), Decoding(branch="visual"), Decoding("nar"), Decoding(draft=False)])
def test_words_are_those_of_the_same_network_without(rig, engine_bundle, drafting, tiny_bundle, images, how):
    r = rig()
    backend, driver = r.open(engine_bundle(drafting), how, cache=3)
    plain = Bundle.open(tiny_bundle)
    want = driver_of(plain, how)(OrtBackend(plain, threads=1), images[:20])
    reading = backend.read(driver, images[:20])
    assert np.array_equal(reading.ids, want.ids)
    np.testing.assert_allclose(reading.probs, want.probs, rtol=2e-3, atol=2e-5)
    drafted = 20 if how.decode == "ar" and how.draft else 0
    assert reading.stats.drafted == drafted
    fetched = Counter(size for _, name, size in r.gpu.trace if name == "copy_out")
    assert fetched[8 * 4 * FRAMES * 4] > 0, "the image stage's graph copies it with the rest, used or not"
    backend.close()
    r.check_empty()


def test_engines_are_compared_as_others_are(rig, engine_bundle, drafting, images):
    r = rig()
    backend, driver = r.open(engine_bundle(drafting))
    backend.with_logits = True
    parity = compare(driver, OrtBackend(Bundle.open(drafting), threads=1), backend, images[:16])
    assert parity.frames == parity.agreeing_frames == 16 * 4 * FRAMES and parity.agreement == 1
    backend.close()
    r.check_empty()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"dtype": "FLOAT"}, "draft's type is FLOAT, the manifest means INT32"),
        ({"shape": (-1, 7)}, r"draft's shape is \(-1, 7\), the manifest means \(-1, 32\)"),
        ({"location": "HOST"}, "draft's memory"),
    ],
)
def test_an_engine_whose_draft_is_another_is_refused(rig, engine_bundle, drafting, change, message):
    r = rig()
    with pytest.raises(BundleError, match=message):
        r.open(engine_bundle(drafting, plans={"image": {"draft": change}}))
    r.check_empty()


def test_engines_without_the_head_that_the_manifest_means(rig, engine_bundle, drafting):
    r = rig()
    folder = engine_bundle(drafting)
    bundle = Bundle.open(folder)
    config = {**bundle.manifest.config, "draft_frames": 0}
    with pytest.raises(BundleError, match="the set of its tensors is"):
        r.open(replace(bundle, manifest=replace(bundle.manifest, config=config)))
    r.check_empty()
