"""Bundles built once per session; tests/conftest.py has the float32 one."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from clip4str.export import add_engines, bundles
from clip4str.export.bundles import build_bundle
from clip4str.export.parity_images import sample_images
from clip4str.model import Clip4Str, load_checkpoint
from clip4str.runtime.bundle import STAGES


@pytest.fixture
def all_crops() -> None:
    """For tests of builds that compare words on all sample crops."""


@pytest.fixture(autouse=True)
def builds_compare_few_crops(request, few_crops, monkeypatch) -> None:
    if "all_crops" not in request.fixturenames:
        for module in (bundles, add_engines):
            monkeypatch.setattr(module, "sample_images", lambda folder=None: sample_images(folder or few_crops))


@pytest.fixture(scope="session")
def tiny_model(golden_checkpoint) -> Clip4Str:
    return load_checkpoint(golden_checkpoint("tiny"))


@pytest.fixture(scope="session")
def half_bundle(golden_checkpoint, few_crops, tmp_path_factory) -> Path:
    """The golden tiny network in half precision. Its weights are random, so a few words may differ."""
    target = tmp_path_factory.mktemp("half") / "tiny-fp16"
    how = {"precision": "fp16", "min_agreement": 0, "sample_folder": few_crops}
    return build_bundle(golden_checkpoint("tiny"), target, **how)


@pytest.fixture(scope="session")
def graphs(tiny_bundle, half_bundle) -> dict[tuple[str, str], onnx.ModelProto]:
    """(precision, stage) -> the model in the file"""
    folders = {"fp32": tiny_bundle, "fp16": half_bundle}
    return {(p, s): onnx.load(folders[p] / f"{s}.onnx") for p in folders for s in STAGES}


@pytest.fixture(scope="session")
def golden_pixels(golden) -> np.ndarray:
    """The golden tiny images, normalised: (n, 3, H, W)"""
    images = golden("tiny")["images"].astype(np.float32)
    return np.ascontiguousarray(((images / 255 - 0.5) / 0.5).transpose(0, 3, 1, 2))
