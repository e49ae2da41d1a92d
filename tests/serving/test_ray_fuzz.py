"""Requests by the thousand, made by schemathesis from our own OpenAPI: none is a 500, every answer is as described."""

from __future__ import annotations

import os

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("schemathesis")

import schemathesis
from api_rig import CROP, TOKEN, service
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from clip4str.runtime import Recognizer
from clip4str.serving.ray.http_api import make_api
from clip4str.video import Detections
from clip4str.video.detect import NOTHING

EXAMPLES = int(os.environ.get("CLIP4STR_FUZZ_EXAMPLES", "60"))  # an operation


class Blind:
    def detect(self, frame) -> Detections:
        return NOTHING


api = make_api(service(Recognizer.load(threads=1), Blind(), max_images=4, max_bytes=100_000), TOKEN)
client = TestClient(api)
schema = schemathesis.openapi.from_asgi("/openapi.json", api)


@pytest.mark.parametrize("token", [TOKEN, None])
@schema.parametrize()
@settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_request_is_a_500(case, token):
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    case.call_and_validate(headers=headers, checks=[
        schemathesis.checks.not_a_server_error, schemathesis.checks.status_code_conformance,
        schemathesis.checks.content_type_conformance, schemathesis.checks.response_schema_conformance,
    ])  # fmt: skip


PICTURES = st.one_of(st.just(CROP), st.binary(max_size=200), st.integers(1, len(CROP) - 1).map(lambda n: CROP[:n]))
TYPES = ["image/jpeg", "application/json", "multipart/form-data; boundary=x", "application/octet-stream", "text/x", ""]


@settings(max_examples=2 * EXAMPLES, deadline=None)
@given(PICTURES, st.sampled_from(TYPES), st.sampled_from(["/read", "/read_photo", "/read_photo?least=0"]))
def test_pictures_under_any_type(content, kind, path):
    """Which schemathesis would not come upon."""
    answer = client.post(path, content=content, headers={"Content-Type": kind, "Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code in (200, 400, 413, 415, 422) and answer.json()["bundle"]
