from __future__ import annotations

import pytest

from clip4str.runtime import Recognizer


@pytest.fixture(scope="session")
def recognizer() -> Recognizer:
    return Recognizer.load(threads=1)
