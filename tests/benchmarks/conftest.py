"""Fixtures: the tiny golden network as a bundle, and LMDB data sets written for one test."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def tiny_bundle(golden_checkpoint, tmp_path_factory) -> Path:
    from clip4str.export.build_engine import build_bundle

    return build_bundle(golden_checkpoint("tiny"), tmp_path_factory.mktemp("bundles") / "tiny", max_batch=8)


@pytest.fixture
def write_lmdb() -> Callable[..., Path]:
    """write_lmdb(folder, [(image array or bytes, label), ...], without=(keys), num_samples=None) -> folder"""
    lmdb = pytest.importorskip("lmdb")

    def write(
        folder: Path,
        words: Sequence[tuple[np.ndarray | bytes, str | bytes]],
        without: Sequence[str] = (),
        num_samples: str | None = None,
    ) -> Path:
        folder.mkdir(parents=True)
        entries = {"num-samples": (str(len(words)) if num_samples is None else num_samples).encode()}
        for number, (image, label) in enumerate(words, 1):
            entries[f"image-{number:09d}"] = image if isinstance(image, bytes) else png(image)
            entries[f"label-{number:09d}"] = label if isinstance(label, bytes) else label.encode()
        environment = lmdb.open(str(folder), map_size=1 << 24)
        with environment.begin(write=True) as transaction:
            for key, value in entries.items():
                if key not in without:
                    transaction.put(key.encode(), value)
        environment.close()
        return folder

    return write


def png(image: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()
