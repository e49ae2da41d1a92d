"""Fixtures of trt_rig.py's things."""

from __future__ import annotations

import gc
import shutil

import numpy as np
import pytest
from trt_rig import Rig, add_engines

from clip4str.export.bundles import build_bundle
from clip4str.runtime.backends.trt.library import logger_of


@pytest.fixture
def engine_bundle(tiny_bundle, tmp_path):
    """engine_bundle(profile=..., ...) -> a float32 bundle's folder with engines; see add_engines"""

    def make(source=tiny_bundle, name="bundle", **how):
        shutil.copytree(source, tmp_path / name)
        return add_engines(tmp_path / name, **how)

    return make


@pytest.fixture(scope="session")
def half_tiny_bundle(golden_checkpoint, few_crops, tmp_path_factory):
    target = tmp_path_factory.mktemp("half") / "tiny-fp16"
    how = {"precision": "fp16", "min_agreement": 0, "sample_folder": few_crops}
    return build_bundle(golden_checkpoint("tiny"), target, **how)


@pytest.fixture
def rig(monkeypatch):
    """rig(gpu=..., rtx=..., version=...) -> Rig"""
    yield lambda gpu=None, **how: Rig(monkeypatch, gpu, **how)
    logger_of.cache_clear()  # by library: a rig's own, with its networks, would be kept till the end


@pytest.fixture(scope="session")
def images(golden):
    """70 normalised images of the golden tiny network's size, the golden ones among them"""
    pixels = golden("tiny")["images"].astype(np.float32).transpose(0, 3, 1, 2) / 127.5 - 1
    random = np.random.default_rng(0)
    more = np.stack([np.roll(pixels[i % len(pixels)], int(random.integers(1, 60)), axis=-1) for i in range(70)])
    return np.ascontiguousarray(np.concatenate((pixels, more))[:70], np.float32)


@pytest.fixture
def quick_collections():
    """What other tests have left in memory is not looked through at every gc.collect()."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()
