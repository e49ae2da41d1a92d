"""Tests beside real servers and pipelines, by `make test-live`. One names the Debian packages that it needs with
`pytestmark = pytest.mark.debian("mosquitto")`, and takes gi by `pytest.importorskip("gi")`."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
from run import REQUIRED, missing

LACKING = frozenset(missing())


def pytest_runtest_setup(item: pytest.Item) -> None:
    wanted = {name for mark in item.iter_markers("debian") for name in mark.args}
    if lacking := sorted(wanted & LACKING):
        (pytest.fail if REQUIRED else pytest.skip)(f"not installed: apt-get install {' '.join(lacking)}")
