"""What a real Triton server refuses over our repositories: requests, models, too much at once."""

from __future__ import annotations

import json
import re
import struct
import threading
import zlib

import numpy as np
import pytest
from batch_inputs import CROPS
from PIL import Image
from triton_rig import MAX_BATCH, MODEL, counts, encoded, inputs, together


def bomb() -> bytes:
    """A PNG of a few bytes that says it is 60,000 pixels wide and high."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


GREY = np.full((1, 40, 80, 3), 128, np.uint8)
QUAD = np.array([[[[5, 5], [60, 5], [60, 30], [5, 30]]]], np.float32)
ONLY_QUADS = "UsageError: a request has image"
BAD = {
    "ImageError: picture 0: damaged image": encoded(CROPS[0].read_bytes()[:300]),
    "ImageError: picture 0: the file is empty": encoded(b""),
    "ImageError: picture 0: not an image": encoded(b"/etc/passwd"),
    "ImageError: picture 0: far more pixels than the 64,000,000 allowed": encoded(bomb()),
    "ImageError: picture 1: damaged image": encoded(CROPS[1].read_bytes(), CROPS[0].read_bytes()[:300]),
    "ImageError: picture 0: expected uint8": {"pixels": np.zeros((1, 40, 80, 7), np.uint8)},
    "ImageError: picture 0: 70000x2 pixels hold no word": {"pixels": np.zeros((1, 2, 70_000, 3), np.uint8)},
    "ImageError: picture 0: 1x1 pixels hold no word": {"pixels": np.zeros((1, 1, 1, 3), np.uint8)},
    ONLY_QUADS: {"quads": QUAD},
    "ShapeError: picture 0: quad 0 of 1: corners are finite": {"pixels": GREY, "quads": QUAD * np.nan},
    "ShapeError: picture 0: quad 0 of 1: corners go clockwise": {"pixels": GREY, "quads": QUAD[:, :, ::-1].copy()},
    "ShapeError: quads: 2000 in a picture; at most": {"pixels": GREY, "quads": QUAD.repeat(2000, 1)},
    "ShapeError: quads: those of a picture cover": {"pixels": GREY, "quads": QUAD * 1000},
    "ShapeError: pixels: expected frames of shape": {"pixels": GREY[..., :1], "quads": QUAD},
}  # fmt: skip


def test_what_is_wrong_fails_alone_and_says_why(triton, grpc_client, recognizer, crop_words):
    """Good requests between bad ones, all of a kind at once: in the same batches, as the server counts. Of all kinds at
    once they arrive in any order, and each change of kind ends a batch."""
    crop = np.asarray(Image.open(CROPS[2]).convert("RGB"))
    (grey,) = recognizer.read_quads(GREY[0], QUAD[0])
    good = {
        ("image",): (encoded(CROPS[0].read_bytes()), crop_words[0].text),
        ("pixels",): ({"pixels": crop[None]}, crop_words[2].text),
        ("pixels", "quads"): ({"pixels": GREY, "quads": QUAD}, grey.text),
    }
    pairs = sorted(((tuple(bad), text, bad) for text, bad in BAD.items() if tuple(bad) in good), key=lambda one: one[0])
    before = counts(triton)
    answers = []
    for kind in sorted(good):
        of_kind = [one for each, _, bad in pairs if each == kind for one in (good[kind][0], bad)]
        answers += together(grpc_client, MODEL, of_kind)
    assert len(pairs) == len(BAD) - 1
    assert [answer.texts[0][0] for answer in answers[::2]] == [good[kind][1] for kind, _, _ in pairs]
    answers += together(grpc_client, MODEL, [{"quads": QUAD}])
    for text, error in zip([*(text for _, text, _ in pairs), ONLY_QUADS], [*answers[1:-1:2], answers[-1]]):
        assert text in str(error), (text, error)
        assert "INVALID_ARGUMENT" in str(error.status())
        assert "\n" not in str(error) and not re.search(r"/\w+/|Traceback|\.py", str(error))
    assert counts(triton)[1] - before[1] < len(answers) / 2, counts(triton)


def test_what_the_server_itself_refuses(grpc_client, http_client):
    """Types, dimensions and batches that the configuration does not know; and parameters that we do not."""
    import tritonclient.grpc as grpc
    from tritonclient.utils import InferenceServerException

    floats = grpc.InferInput("pixels", [1, 4, 8, 3], "FP32")
    floats.set_data_from_numpy(np.zeros((1, 4, 8, 3), np.float32))
    flat = grpc.InferInput("pixels", [1, 40, 80], "UINT8")
    flat.set_data_from_numpy(np.zeros((1, 40, 80), np.uint8))
    torn = grpc.InferInput("image", [1, 1], "BYTES")
    torn._raw_content = struct.pack("<I", 2**31 - 1) + b"x"  # says that it is longer than it is
    large = inputs(grpc, encoded(*[CROPS[0].read_bytes()] * (MAX_BATCH + 1)))
    for wrong, said in (
        (floats, "data-type"),
        (flat, "shape"),
        (torn, "string length|incomplete"),
        (large, "batch-size must be <= 8"),
    ):
        with pytest.raises(InferenceServerException, match=said):
            grpc_client.infer(MODEL, wrong if isinstance(wrong, list) else [wrong])
    import tritonclient.http as http

    with pytest.raises(InferenceServerException, match="ImageError: picture 0: damaged") as caught:
        http_client.infer(MODEL, inputs(http, encoded(CROPS[0].read_bytes()[:300])))
    assert caught.value.status() == "400"
    one = inputs(grpc, encoded(CROPS[0].read_bytes()))
    for parameters, said in (
        ({"lay": "bgr"}, "there is no parameter 'lay'"),
        ({"layout": "yuv"}, "layout is one of rgb, bgr, nv12"),
        ({"layout": "bgr"}, "layout bgr is for pixels"),
        ({"turn": True}, "turn: for frames"),
        ({"turn": "yes"}, "turn is a bool"),
    ):
        with pytest.raises(InferenceServerException, match=f"UsageError: {said}"):
            grpc_client.infer(MODEL, one, parameters=parameters)


@pytest.mark.parametrize(
    "name, why",
    [
        ("damaged", "TritonModelException: bundle/visual.onnx: its sha256 is not the manifest's; it was changed"),
        ("wrong", "TritonModelException: tensorrt needs a GPU: an instance_group of KIND_GPU in config.pbtxt"),
        ("absent", "TritonModelException: bundle: no such bundle folder"),
    ],
)
def test_a_model_that_cannot_be_loaded_says_why(triton, triton_repository, name, why):
    status, body = triton.get(f"/v2/repository/models/{name}/load", "POST")
    assert status == 400
    listed = json.loads(triton.get("/v2/repository/index", "POST")[1])
    reason = next(one["reason"] for one in listed if one["name"] == name)
    first, *rest = reason.splitlines()
    assert first.removeprefix("Internal: ").startswith(why)
    assert [line for line in rest if line.strip()] == ["At:", "  clip4str(2): <module>"]  # pybind11's, of nowhere
    for text in (body, reason):
        assert str(triton_repository) not in text and ".py" not in text
    assert triton.get(f"/v2/models/{MODEL}/ready")[0] == 200


def test_more_than_the_queue_holds_is_refused_at_once(grpc_client, crop_words):
    crop = encoded(CROPS[0].read_bytes())
    answers = together(grpc_client, "narrow", [crop] * 30)
    refused = [answer for answer in answers if isinstance(answer, Exception)]
    assert all("Exceeds maximum queue size" in str(error) for error in refused) and len(refused) > 15
    assert all("UNAVAILABLE" in str(error.status()) for error in refused)
    read = [answer for answer in answers if not isinstance(answer, Exception)]
    # the two that may wait; one more where the first was taken before those came
    assert len(read) >= 2 and all(answer.texts == [[crop_words[0].text]] for answer in read)


def test_what_has_waited_too_long_is_refused_and_http_says_so_too(triton, grpc_client, http_client, frame):
    """Behind frames of many words."""
    import tritonclient.grpc as grpc
    import tritonclient.http as http
    from tritonclient.utils import InferenceServerException

    pixels, quads = frame
    slow, crop = {"pixels": pixels[None], "quads": quads.repeat(16, 0)[None]}, encoded(CROPS[0].read_bytes())

    def behind(count: int, waiting: int) -> threading.Thread:
        thread = threading.Thread(target=together, args=(grpc_client, "narrow", [slow] * count))
        thread.start()
        while pending(triton) < waiting and thread.is_alive():
            pass
        return thread

    thread = behind(2, 1)
    with pytest.raises(InferenceServerException, match="Request timeout expired") as caught:
        grpc_client.infer("narrow", inputs(grpc, crop), timeout=1000)
    assert "UNAVAILABLE" in str(caught.value.status())
    thread.join()
    thread = behind(8, 2)  # all that may wait
    with pytest.raises(InferenceServerException, match="Exceeds maximum queue size") as caught:
        for _ in range(3):
            http_client.infer("narrow", inputs(http, crop))
    assert caught.value.status() == "503"
    thread.join()


def pending(triton) -> int:
    """Requests that wait for `narrow`."""
    metrics = triton.get("/metrics", port=triton.metrics)[1]
    return int(re.search(r'nv_inference_pending_request_count{model="narrow",version="1"} (\d+)', metrics)[1])
