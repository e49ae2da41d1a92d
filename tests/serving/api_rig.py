"""The HTTP API without Ray: requests go straight to FastAPI."""

from __future__ import annotations

from collections import Counter
from typing import Any

from batch_inputs import CROPS

from clip4str.serving.ray.http_api import make_api
from clip4str.serving.ray.server_settings import Settings
from clip4str.serving.ray.service import Service

CROP = CROPS[0].read_bytes()
TOKEN = "a-token-of-some-length"


class Counted:
    """Figures that a test looks at."""

    def __init__(self) -> None:
        self.answers: Counter[tuple[str, int]] = Counter()
        self.images = self.unreadable = self.most = 0

    def answered(self, path: str, status: int, seconds: float) -> None:
        self.answers[path, status] += 1

    def batch(self, images: int, unreadable: int, seconds: float) -> None:
        self.images, self.unreadable = self.images + images, self.unreadable + unreadable

    def waiting(self, images: int) -> None:
        self.most = max(self.most, images)


def service(recognizer: Any, detector: Any = None, **settings: Any) -> Service:
    return Service(recognizer, Settings(**settings), Counted(), detector)


def client(made: Service, token: str | None = None) -> Any:
    from fastapi.testclient import TestClient

    return TestClient(make_api(made, token), raise_server_exceptions=False)
