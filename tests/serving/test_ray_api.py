"""The HTTP API as documented: answers, limits, errors, the token. Without Ray."""

from __future__ import annotations

import base64
import json
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

pytest.importorskip("fastapi")
pytest.importorskip("multipart")
pytest.importorskip("httpx")

import numpy as np
from api_rig import CROP, TOKEN, client, service
from batch_inputs import CROPS, words_of

from clip4str.core.errors import BackendError, UsageError
from clip4str.serving.ray import bearer, uploads
from clip4str.serving.ray.refusals import TYPES, Refused
from clip4str.serving.ray.server_settings import VARIABLE
from clip4str.serving.ray.service import STUCK
from clip4str.serving.versions import bundle_version


@pytest.fixture
def api(recognizer):
    return client(service(recognizer, max_images=8, max_bytes=1 << 20))


def test_a_form_and_json_and_a_bare_picture_get_the_same_words(api, recognizer):
    wanted = list(words_of(recognizer, CROPS[:3]).values())
    files = [("files", (crop.name, crop.read_bytes())) for crop in CROPS[:3]]
    encoded = [base64.b64encode(crop.read_bytes()).decode() for crop in CROPS[:3]]
    for answer in (api.post("/read", files=files).json(), api.post("/read", json={"images": encoded}).json()):
        assert [(word["text"], word["confidence"]) for word in answer["words"]] == wanted
        assert answer["bundle"] == bundle_version(recognizer.manifest)
    (word,) = api.post("/read", content=CROP, headers={"Content-Type": "image/jpeg"}).json()["words"]
    assert (word["text"], word["confidence"]) == wanted[0] and len(word["char_confidences"]) == len(word["text"])


def test_lines_come_one_a_picture_in_order(api, recognizer):
    files = [("files", ("x", content)) for content in (CROP, b"bad", CROP)]
    answer = api.post("/read", files=files, headers={"Accept": "application/x-ndjson"})
    assert answer.headers["content-type"].startswith("application/x-ndjson")
    lines = [json.loads(line) for line in answer.text.splitlines()]
    assert [line["index"] for line in lines] == [0, 1, 2]
    assert [line.get("text") for line in lines] == ["HAPPENINGS", None, "HAPPENINGS"]
    assert {line["bundle"] for line in lines} == {bundle_version(recognizer.manifest)}


def test_what_is_no_picture_has_an_error_in_its_place(api):
    words = api.post("/read", files=[("files", ("../../etc/passwd", b"bad")), ("files", ("b", CROP))]).json()["words"]
    assert words[0] == {"error": {"type": "image", "message": "not an image that Pillow can read"}}
    assert words[1]["text"] == "HAPPENINGS"


JSON, PNG = {"Content-Type": "application/json"}, {"Content-Type": "image/png"}


@pytest.mark.parametrize(
    "sent, kind",
    [
        ({"json": {"images": ["not base64!"]}}, "unprocessable"),
        ({"json": {"images": []}}, "unprocessable"),
        ({"json": {"pictures": ["aaaa"]}}, "unprocessable"),
        ({"json": {"images": "aaaa"}}, "unprocessable"),
        ({"content": b"{", "headers": JSON}, "unprocessable"),
        ({"content": b"[" * 100_000, "headers": JSON}, "unprocessable"),
        ({"content": b"\xff\xfe", "headers": JSON}, "unprocessable"),
        ({"content": b"x"}, "unsupported_media_type"),
        ({"content": b"x", "headers": {"Content-Type": "text/html"}}, "unsupported_media_type"),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data"}}, "bad_request"),
        ({"content": b"x", "headers": {"Content-Type": "multipart/form-data; boundary=a"}}, "bad_request"),
        ({"data": {"a": "b"}, "files": {}}, "unsupported_media_type"),
        ({"content": b"x" * ((1 << 20) + 1), "headers": PNG}, "too_large"),
        ({"content": (b"x" * 300_000 for _ in range(5)), "headers": PNG}, "too_large"),
        ({"files": [("files", ("a", CROP))] * 9}, "too_large"),
        ({"files": [("files", ("a", CROP))] * 30}, "bad_request"),
    ],
)
def test_wrong_requests_get_a_typed_error(api, sent, kind):
    answer = api.post("/read", **sent)
    assert (answer.status_code, answer.json()["error"]["type"]) == (TYPES[kind], kind)
    assert set(answer.json()) == {"bundle", "error"} and "\n" not in answer.json()["error"]["message"]


def test_a_part_that_is_no_file_shifts_no_word(api):
    part = b'--x\r\nContent-Disposition: form-data; name="files"%s\r\nContent-Type: image/jpeg\r\n\r\n' + CROP + b"\r\n"
    for names in ((b"", b'; filename="b"'), (b'; filename="a"', b""), (b"", b"")):
        body = b"".join(part.replace(b"%s", name, 1) for name in names) + b"--x--\r\n"
        answer = api.post("/read", content=body, headers={"Content-Type": "multipart/form-data; boundary=x"})
        assert (answer.status_code, answer.json()["error"]["type"]) == (422, "unprocessable"), names
        assert "filename" in answer.json()["error"]["message"]


@pytest.mark.parametrize("value", [b'""', b"0", b"[]", b"{}"])
def test_json_of_a_million_values_is_refused_before_it_is_parsed(value, monkeypatch):
    body = b'{"images":[' + (value + b",") * 1_000_000 + value + b"]}"
    monkeypatch.setattr(uploads.JsonImages, "model_validate_json", None)  # is not come to
    with pytest.raises(Refused, match="a request may have 64 pictures") as raised:
        uploads._json(body, 64)
    assert raised.value.kind == "too_large"


def test_too_many_pictures_in_json_are_not_decoded(api, monkeypatch):
    encoded = base64.b64encode(CROP).decode()
    assert len(api.post("/read", json={"images": [encoded] * 8}).json()["words"]) == 8
    monkeypatch.setattr(uploads.base64, "b64decode", None)
    answer = api.post("/read", json={"images": [encoded] * 9})
    assert answer.json()["error"] == {"type": "too_large", "message": "a request may have 8 pictures, not 9"}


def test_paths_and_methods_that_there_are_not(api):
    assert api.get("/none").json()["error"]["type"] == "not_found"
    answer = api.get("/read")
    assert (answer.status_code, answer.headers["allow"]) == (405, "POST")
    assert api.post("/read_photo?least=2", content=CROP, headers=PNG).json()["error"]["type"] == "unprocessable"
    assert api.post("/read_photo", content=CROP, headers=PNG).json()["error"]["type"] == "not_installed"


def test_photos(recognizer):
    cv2 = pytest.importorskip("cv2")
    pytest.importorskip("rapidocr")
    from clip4str.video.detect import open_detector

    photo = np.full((300, 400, 3), 255, np.uint8)
    cv2.putText(photo, "STREET", (60, 160), cv2.FONT_HERSHEY_SIMPLEX, 2, (0, 0, 0), 5)
    made = client(service(recognizer, open_detector("auto")))
    content = cv2.imencode(".png", photo)[1].tobytes()
    answer = made.post("/read_photo", content=content, headers=PNG).json()
    assert [word["text"] for word in answer["words"]] == ["STREET"]
    assert (answer["width"], answer["height"]) == (400, 300)
    assert np.ptp(answer["words"][0]["quad"], axis=0)[0] > 150
    assert made.post("/read_photo", content=b"bad", headers=PNG).json()["error"]["type"] == "unprocessable"
    assert made.post("/read_photo", files=[("files", ("a", content))] * 2).json()["error"]["type"] == "too_large"


def test_who_has_no_token_gets_nothing_but_health(recognizer):
    api = client(service(recognizer), TOKEN)
    wrong = ["", "Bearer x", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", b"Bearer \xff"]
    for headers in ({}, *({"Authorization": value} for value in wrong)):
        for answer in (
            api.post("/read", content=CROP, headers={**PNG, **headers}),
            api.get("/info", headers=headers),
        ):
            assert (answer.status_code, answer.json()["error"]["type"]) == (401, "unauthorized"), headers
            assert answer.headers["www-authenticate"] == "Bearer"
    good = {"Authorization": f"Bearer {TOKEN}"}
    assert api.post("/read", content=CROP, headers={**PNG, **good}).status_code == 200
    assert api.get("/info", headers=good).json()["max_images"] == 64 and api.get("/health").json()["status"] == "ready"


def test_tokens_come_from_a_file_or_the_environment_and_are_not_shown(tmp_path, monkeypatch):
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    assert bearer.given_token(str(file)) == TOKEN and bearer.given_token("") is None
    file.write_text(f"{TOKEN}\nwhat it is for: the second line is not the token\n")
    assert bearer.given_token(str(file)) == TOKEN
    file.write_text(f"\n{TOKEN}\n")
    with pytest.raises(UsageError, match="a token is 16 to 512"):
        bearer.given_token(str(file))
    monkeypatch.setenv(VARIABLE, TOKEN[::-1])
    assert bearer.given_token("") == TOKEN[::-1]
    monkeypatch.setenv(VARIABLE, "secret")
    with pytest.raises(UsageError, match=f"{VARIABLE}: a token is 16 to 512") as raised:
        bearer.given_token("")
    assert "secret" not in str(raised.value)
    with pytest.raises(UsageError, match="No such file"):
        bearer.given_token(str(tmp_path / "none"))


def test_what_others_can_reach_needs_a_token(monkeypatch):
    monkeypatch.delenv(bearer.HAPROXY, raising=False)
    bearer.needed("127.0.0.1", None)
    bearer.needed("0.0.0.0", TOKEN)
    with pytest.raises(UsageError, match=r"--host 0\.0\.0\.0: others can reach"):
        bearer.needed("0.0.0.0", None)
    monkeypatch.setenv(bearer.HAPROXY, "1")  # replicas' own ports are open then
    with pytest.raises(UsageError, match=f"{bearer.HAPROXY}=1: others can reach"):
        bearer.needed("127.0.0.1", None)
    bearer.needed("127.0.0.1", TOKEN)


class Slow:
    """A recogniser whose batches wait until they are let go on, or fail."""

    def __init__(self, inner, error=None):
        self.manifest, self.backend, self.batch_size = inner.manifest, inner.backend, inner.batch_size
        self.inner, self.error, self.go = inner, error, threading.Event()

    def read_each(self, images):
        if self.error is not None:
            raise self.error
        assert self.go.wait(20)
        return self.inner.read_each(images)


def test_what_cannot_be_read_soon_is_refused_at_once(recognizer):
    slow = Slow(recognizer)
    made = service(slow, max_waiting=3, max_images=3)
    api = client(made)
    with api, ThreadPoolExecutor(8) as pool:
        first = pool.submit(api.post, "/read", files=[("files", ("a", CROP))] * 2)
        while made.waiting < 2:
            pass
        answer = api.post("/read", files=[("files", ("a", CROP))] * 2)
        assert (answer.status_code, answer.json()["error"]["type"]) == (429, "overloaded")
        assert answer.headers["retry-after"] == "1"
        second = pool.submit(api.post, "/read", content=CROP, headers=PNG)
        while made.waiting < 3:
            pass
        assert api.post("/read", content=b"x" * 100, headers=PNG).status_code == 429
        slow.go.set()
        assert first.result().status_code == second.result().status_code == 200
        assert api.post("/read", content=CROP, headers=PNG).status_code == 200
    assert made.waiting == 0 and made._held == 0 and made.figures.most == 3
    assert made.figures.answers["/read", 429] == 2 and made.figures.images == 4


def test_what_is_held_of_requests_is_bounded(recognizer):
    made = service(recognizer, max_bytes=1024)
    api = client(made)
    made._held = 8 * 1024 - 10
    assert api.post("/read", content=b"x" * 100, headers=PNG).status_code == 429
    made._held = 0
    assert api.post("/read", content=b"x" * 100, headers=PNG).status_code == 200


@pytest.mark.parametrize("accept", ["*/*", "application/x-ndjson"])
@pytest.mark.parametrize(
    "error, kind", [(BackendError("CUDA failed at /opt/secret/engine.plan"), "unavailable"),
                    (RuntimeError("/opt/secret/file.py, line 3"), "internal")],
)  # fmt: skip
def test_nothing_of_this_machine_leaves_it(recognizer, accept, error, kind):
    made = service(Slow(recognizer, error))
    api = client(made)
    answer = api.post("/read", content=CROP, headers={**PNG, "Accept": accept})
    said = json.loads(answer.text.splitlines()[-1])
    assert said["error"]["type"] == kind and answer.status_code == (200 if "ndjson" in accept else TYPES[kind])
    assert not re.search(r"secret|Traceback|\.py|line \d", answer.text)
    assert made.waiting == 0
    assert api.get("/health").status_code == (503 if kind == "unavailable" else 200)
    if kind == "unavailable":
        with pytest.raises(BackendError):
            made.check()


def test_openapi_has_every_error_that_is_answered(api):
    described = api.get("/openapi.json").json()["paths"]["/read"]["post"]
    assert set(described["requestBody"]["content"]) == {"multipart/form-data", "application/json", "image/*"}
    assert {int(status) for status in described["responses"]} == {200, 400, 401, 413, 415, 422, 429, 500, 503}
    assert api.get("/docs").status_code == 200


def test_a_batch_that_never_ends_has_the_replica_replaced(recognizer):
    made = service(recognizer)
    made._running[1] = time.monotonic() - STUCK + 5
    made.check()
    made._running[1] = time.monotonic() - STUCK - 1
    with pytest.raises(BackendError):
        made.check()
