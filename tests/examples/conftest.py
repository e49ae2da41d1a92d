"""Tests of examples/, by `make test-examples`, which puts what they run on into build/examples. A test asks for a part
of it by `needs("node")`, and compares words with Recognizer's."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from examples_run import FOLDER, REQUIRED

from clip4str.core.packaged import PACKAGED
from clip4str.export.parity_images import BUNDLED_CROPS
from clip4str.export.single_file.write import write_graph
from clip4str.runtime import Recognizer
from clip4str.runtime.bundle import Bundle


@pytest.fixture(scope="session")
def needs():
    """needs("node") -> its folder in build/examples"""

    def there(name: str) -> Path:
        if not (FOLDER / name / ".ready").exists():
            required = REQUIRED or (name == "openvino" and os.environ.get("CI"))  # a package like any other
            (pytest.fail if required else pytest.skip)(f"{name} is not in build/examples: make test-examples")
        return FOLDER / name

    return there


@pytest.fixture(scope="session")
def crops() -> list[Path]:
    return sorted(BUNDLED_CROPS.glob("*.jpg"))


@pytest.fixture(scope="session")
def words(crops):
    """What Recognizer reads in them."""
    with Recognizer.load(PACKAGED, "onnxruntime") as recognizer:
        return recognizer.read(crops)


@pytest.fixture(scope="session")
def exported(tmp_path_factory):
    """exported(options) -> the packaged network's file"""
    made: dict[str, Path] = {}

    def export(options) -> Path:
        if str(options) not in made:
            made[str(options)] = tmp_path_factory.mktemp("single") / "word.onnx"
            write_graph(Bundle.open(PACKAGED), made[str(options)], options)
        return made[str(options)]

    return export
