"""The tiny golden network as a bundle for eight images at once."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def tiny_bundle(golden_checkpoint, tmp_path_factory) -> Path:
    from clip4str.export.build_engine import build_bundle

    return build_bundle(golden_checkpoint("tiny"), tmp_path_factory.mktemp("bundles") / "tiny", max_batch=8)
