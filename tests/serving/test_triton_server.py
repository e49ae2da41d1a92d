"""A real Triton server over our repositories, asked by NVIDIA's own clients."""

from __future__ import annotations

import io
import json
import re
import shutil
import struct
import threading
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from triton_rig import CROPS, answer_of, encoded, inputs, merge, together

from clip4str.benchmarks.serving_load.triton_server import TritonServer
from clip4str.core.packaged import PACKAGED
from clip4str.runtime import Recognizer
from clip4str.runtime.bundle import Bundle
from clip4str.serving.triton.options import Serving
from clip4str.serving.triton.repository import add_version, write_repository
from clip4str.serving.versions import bundle_version

MODEL = "clip4str"
MAX_BATCH = 8


def quiet(_: object) -> None:
    """Says nothing."""


@pytest.fixture(scope="module")
def repository(triton_packages, tmp_path_factory) -> Path:
    """`clip4str`, two processes; `narrow`, which one request at a time enters and two may wait for; three that cannot
    be loaded."""
    folder, bundle = tmp_path_factory.mktemp("repositories"), Bundle.open(PACKAGED)
    made = {
        MODEL: Serving(
            MODEL, "onnxruntime", instances=2, max_batch=MAX_BATCH, delay_ms=20, queue=1000, timeout_ms=60_000
        ),
        "narrow": Serving("narrow", max_batch=1, queue=2, threads=1),
        "damaged": Serving("damaged"),
        "wrong": Serving("wrong"),
        "absent": Serving("absent"),
    }
    for name, serving in made.items():
        write_repository(bundle, folder / name, serving, False, quiet)
    visual = folder / "damaged" / "damaged" / "1" / "bundle" / "visual.onnx"
    visual.write_bytes(visual.read_bytes()[:-1] + b"\0")
    config = folder / "wrong" / "wrong" / "config.pbtxt"
    config.write_text(config.read_text().replace('"auto"', '"torch"', 1))
    (folder / "wrong" / "wrong" / "1" / "bundle" / "manifest.json").write_text("{}")
    shutil.rmtree(folder / "absent" / "absent" / "1" / "bundle")
    (tmp_path_factory.mktemp("clip4str") / MODEL).mkdir()
    return merge(folder / "all", *(folder / name for name in made))


@pytest.fixture(scope="module")
def server(repository, tmp_path_factory):
    options = ["--model-control-mode=explicit", f"--load-model={MODEL}", "--load-model=narrow"]
    with TritonServer(repository, tmp_path_factory.mktemp("server"), options=options) as running:
        yield running


@pytest.fixture
def client(server):
    import tritonclient.grpc as grpc

    with grpc.InferenceServerClient(f"127.0.0.1:{server.grpc}") as made:
        yield made


@pytest.fixture
def over_http(server):
    import tritonclient.http as http

    with http.InferenceServerClient(f"127.0.0.1:{server.http}") as made:
        yield made


@pytest.fixture(scope="module")
def recognizer():
    with Recognizer.load(PACKAGED, "onnxruntime", threads=1) as loaded:
        yield loaded


@pytest.fixture(scope="module")
def words(recognizer):
    return recognizer.read(CROPS)


def counts(server, version="1"):
    """(requests read, executions, {batch size: executions})"""
    (found,) = [one for one in server.statistics(MODEL) if one["version"] == version]
    sizes = {one["batch_size"]: one["compute_infer"]["count"] for one in found["batch_stats"]}
    return found["inference_count"], found["execution_count"], sizes


def test_words_are_the_recognizers_over_grpc_and_http(client, over_http, words):
    import tritonclient.grpc as grpc
    import tritonclient.http as http

    for one, kind in ((client, grpc), (over_http, http)):
        for start in range(0, len(CROPS), MAX_BATCH):
            part = slice(start, start + MAX_BATCH)
            result = one.infer(MODEL, inputs(kind, encoded(*(path.read_bytes() for path in CROPS[part]))))
            answer = answer_of(result)
            assert answer.texts == [[word.text] for word in words[part]]
            assert np.abs(answer.confidences[:, 0] - [word.confidence for word in words[part]]).max() < 1e-5
            assert answer.bundles == {bundle_version(Bundle.open(PACKAGED).manifest)} and answer.version == "1"
            for row, word in zip(result.as_numpy("char_confidence")[:, 0], words[part]):
                assert np.abs(row[: len(word.text)] - word.char_confidences).max() < 1e-5
                assert not row[len(word.text) :].any()


def test_pixels_in_either_order_of_colours(client, words):
    import tritonclient.grpc as grpc

    for path, word in list(zip(CROPS, words))[:6]:
        array = np.asarray(Image.open(path).convert("RGB"))
        assert answer_of(client.infer(MODEL, inputs(grpc, {"pixels": array[None]}))).texts == [[word.text]]
        turned = {"pixels": np.ascontiguousarray(array[None, ..., ::-1])}
        answer = answer_of(client.infer(MODEL, inputs(grpc, turned), parameters={"layout": "bgr"}))
        assert answer.texts == [[word.text]] and abs(answer.confidences[0, 0] - word.confidence) < 1e-5


@pytest.fixture(scope="module")
def frame():
    """A picture with four crops in it, and their corners."""
    canvas, quads, top = Image.new("RGB", (400, 400), "white"), [], 8
    for path in CROPS[:4]:
        crop = Image.open(path).convert("RGB")
        canvas.paste(crop, (20, top))
        right, bottom = 20 + crop.width, top + crop.height
        quads.append([(20, top), (right, top), (right, bottom), (20, bottom)])
        top = bottom + 12
    return np.asarray(canvas), np.array(quads, np.float32)


def test_a_frames_quads_are_read_quads(client, recognizer, frame, words):
    import tritonclient.grpc as grpc

    pixels, quads = frame
    expected = recognizer.read_quads(pixels, quads)
    assert [word.text for word in expected] == [word.text for word in words[:4]]
    png = io.BytesIO()
    Image.fromarray(pixels).save(png, "PNG")
    gray = np.full((600, 400), 128, np.uint8)
    gray[:400] = np.asarray(Image.fromarray(pixels).convert("L"))
    nv12 = recognizer.read_quads(gray, quads, "nv12", full_range=True)
    for tensors, parameters, wanted in (
        ({"pixels": pixels[None]}, {}, expected),
        ({"pixels": np.ascontiguousarray(pixels[None, ..., ::-1])}, {"layout": "bgr"}, expected),
        (encoded(png.getvalue()), {"turn": False}, expected),
        ({"pixels": gray[None, ..., None]}, {"layout": "nv12", "full_range": True}, nv12),
    ):
        answer = answer_of(client.infer(MODEL, inputs(grpc, {**tensors, "quads": quads[None]}), parameters=parameters))
        assert answer.texts == [[word.text for word in wanted]]
        assert np.abs(answer.confidences[0] - [word.confidence for word in wanted]).max() < 1e-5


def test_requests_of_many_clients_are_read_together(server, client, words, frame):
    pixels, quads = frame
    before = counts(server)
    many = [encoded(path.read_bytes()) for path in CROPS] + [{"pixels": pixels[None], "quads": quads[None]}] * 2
    answers = together(client, MODEL, many)
    assert [answer.texts[0] for answer in answers] == [[word.text] for word in words] + [
        [w.text for w in words[:4]]
    ] * 2
    read, executed, sizes = (now if isinstance(now, dict) else now - then for now, then in zip(counts(server), before))
    assert read == len(many) and executed < read / 2, (read, executed, sizes)
    assert max(sizes) > MAX_BATCH // 2


def test_pictures_of_different_sizes_are_read_together(server, client, words):
    pictures = [np.asarray(Image.open(path).convert("RGB")) for path in CROPS[:16]]
    assert len({picture.shape for picture in pictures}) > 8
    before = counts(server)
    answers = together(client, MODEL, [{"pixels": picture[None]} for picture in pictures])
    assert [answer.texts for answer in answers] == [[[word.text]] for word in words[:16]]
    assert counts(server)[1] - before[1] <= 8


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


def test_what_is_wrong_fails_alone_and_says_why(server, client, recognizer, words):
    """Good requests of each kind between bad ones, all at once: in the same batches, as the server counts."""
    crop = np.asarray(Image.open(CROPS[2]).convert("RGB"))
    (grey,) = recognizer.read_quads(GREY[0], QUAD[0])
    good = {
        ("image",): (encoded(CROPS[0].read_bytes()), words[0].text),
        ("pixels",): ({"pixels": crop[None]}, words[2].text),
        ("pixels", "quads"): ({"pixels": GREY, "quads": QUAD}, grey.text),
    }
    pairs = sorted(((tuple(bad), text, bad) for text, bad in BAD.items() if tuple(bad) in good), key=lambda one: one[0])
    before = counts(server)
    answers = together(client, MODEL, [one for kind, _, bad in pairs for one in (good[kind][0], bad)])
    assert len(pairs) == len(BAD) - 1
    assert [answer.texts[0][0] for answer in answers[::2]] == [good[kind][1] for kind, _, _ in pairs]
    answers += together(client, MODEL, [{"quads": QUAD}])
    for text, error in zip([*(text for _, text, _ in pairs), ONLY_QUADS], [*answers[1:-1:2], answers[-1]]):
        assert text in str(error), (text, error)
        assert "INVALID_ARGUMENT" in str(error.status())
        assert "\n" not in str(error) and not re.search(r"/\w+/|Traceback|\.py", str(error))
    assert counts(server)[1] - before[1] < len(answers) / 2


def test_what_the_server_itself_refuses(client, over_http):
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
            client.infer(MODEL, wrong if isinstance(wrong, list) else [wrong])
    import tritonclient.http as http

    with pytest.raises(InferenceServerException, match="ImageError: picture 0: damaged") as caught:
        over_http.infer(MODEL, inputs(http, encoded(CROPS[0].read_bytes()[:300])))
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
            client.infer(MODEL, one, parameters=parameters)


def test_instances_share_the_cores(server):
    """Two processes; each says in the log which bundle it has, and how many threads."""
    from clip4str.core.cpu import available_threads

    said = re.findall(r'"clip4str-small-fp32@\w+ on OrtBackend, threads: (\d+)"', server.log.read_text())
    assert len(said) == 3  # with that of `narrow`
    assert sorted(map(int, said)) == sorted([1, *[max(1, available_threads() // 2)] * 2])


@pytest.mark.parametrize(
    "name, why",
    [
        ("damaged", "TritonModelException: bundle/visual.onnx: its sha256 is not the manifest's; it was changed"),
        ("wrong", "TritonModelException: bundle/manifest.json: "),
        ("absent", "TritonModelException: bundle: no such bundle folder"),
    ],
)
def test_a_model_that_cannot_be_loaded_says_why(server, over_http, repository, name, why):
    status, body = server.get(f"/v2/repository/models/{name}/load", "POST")
    assert status == 400
    listed = json.loads(server.get("/v2/repository/index", "POST")[1])
    reason = next(one["reason"] for one in listed if one["name"] == name)
    first, *rest = reason.splitlines()
    assert first.removeprefix("Internal: ").startswith(why)
    assert [line for line in rest if line.strip()] == ["At:", "  clip4str(2): <module>"]  # pybind11's, of nowhere
    for text in (body, reason):
        assert str(repository) not in text and ".py" not in text
    assert server.get(f"/v2/models/{MODEL}/ready")[0] == 200


def test_more_than_the_queue_holds_is_refused_at_once(client, words):
    crop = encoded(CROPS[0].read_bytes())
    answers = together(client, "narrow", [crop] * 30)
    refused = [answer for answer in answers if isinstance(answer, Exception)]
    assert all("Exceeds maximum queue size" in str(error) for error in refused) and len(refused) > 15
    assert all("UNAVAILABLE" in str(error.status()) for error in refused)
    read = [answer for answer in answers if not isinstance(answer, Exception)]
    assert len(read) >= 3 and all(answer.texts == [[words[0].text]] for answer in read)


def test_what_has_waited_too_long_is_refused_and_http_says_so_too(server, client, over_http, frame):
    """Behind frames of many words."""
    import tritonclient.grpc as grpc
    import tritonclient.http as http
    from tritonclient.utils import InferenceServerException

    pixels, quads = frame
    slow, crop = {"pixels": pixels[None], "quads": quads.repeat(16, 0)[None]}, encoded(CROPS[0].read_bytes())

    def behind(count: int) -> threading.Thread:
        thread = threading.Thread(target=together, args=(client, "narrow", [slow] * count))
        thread.start()
        while not pending(server) and thread.is_alive():
            pass
        return thread

    thread = behind(2)
    with pytest.raises(InferenceServerException, match="Request timeout expired") as caught:
        client.infer("narrow", inputs(grpc, crop), timeout=1000)
    assert "UNAVAILABLE" in str(caught.value.status())
    thread.join()
    thread = behind(8)
    with pytest.raises(InferenceServerException, match="Exceeds maximum queue size") as caught:
        for _ in range(3):
            over_http.infer("narrow", inputs(http, crop))
    assert caught.value.status() == "503"
    thread.join()


def pending(server) -> int:
    """Requests that wait for `narrow`."""
    metrics = server.get("/metrics", port=server.metrics)[1]
    return int(re.search(r'nv_inference_pending_request_count{model="narrow",version="1"} (\d+)', metrics)[1])


def test_a_new_version_takes_over_and_no_request_is_lost(server, repository, client, tiny_bundle, words):
    """Every answer is of the network that it names."""
    import tritonclient.grpc as grpc

    with Recognizer.load(tiny_bundle, "onnxruntime", threads=1) as other:
        theirs = [word.text for word in other.read(CROPS[:4])]
    ours = [word.text for word in words[:4]]
    versions = {bundle_version(Bundle.open(PACKAGED).manifest): ("1", ours),
                bundle_version(Bundle.open(tiny_bundle).manifest): ("2", theirs)}  # fmt: skip
    (repository / "clip4str.json").write_text(json.dumps({"model": MODEL, "form": "python"}))
    add_version(Bundle.open(tiny_bundle), repository, quiet)
    (repository / MODEL / ".3.building-00").mkdir()  # one more is being written meanwhile
    seen, failed, stop = [], [], threading.Event()

    def ask() -> None:
        with grpc.InferenceServerClient(f"127.0.0.1:{server.grpc}") as own:
            number = 0
            while not stop.is_set():
                number = (number + 1) % 4
                try:
                    answer = answer_of(own.infer(MODEL, inputs(grpc, encoded(CROPS[number].read_bytes()))))
                    (name,) = answer.bundles
                    seen.append((name, answer.version, answer.texts[0][0], number))
                except Exception as error:
                    failed.append(error)

    clients = [threading.Thread(target=ask) for _ in range(4)]
    for one in clients:
        one.start()
    while len(seen) < 20 and not failed:
        stop.wait(0.01)
    status, body = server.get(f"/v2/repository/models/{MODEL}/load", "POST")
    enough = len(seen) + 20
    while len(seen) < enough and not failed:
        stop.wait(0.01)
    stop.set()
    for one in clients:
        one.join()
    assert (status, failed) == (200, []), body
    for name, number, text, crop in seen:
        assert (number, versions[name][1][crop]) == (versions[name][0], text)
    assert {number for _, number, _, _ in seen} == {"1", "2"} and seen[-1][1] == "2"
    listed = json.loads(server.get("/v2/repository/index", "POST")[1])
    assert {one["version"]: one["state"] for one in listed if one["name"] == MODEL}["2"] == "READY"
