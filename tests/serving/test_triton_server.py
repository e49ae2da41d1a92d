"""A real Triton server over our repositories, asked by NVIDIA's own clients."""

from __future__ import annotations

import io
import json
import re
import threading

import numpy as np
from batch_inputs import CROPS
from PIL import Image
from triton_rig import MAX_BATCH, MODEL, answer_of, counts, encoded, inputs, together

from clip4str.core.packaged import PACKAGED
from clip4str.runtime import Recognizer
from clip4str.runtime.bundle import Bundle
from clip4str.serving.triton.repository import add_version
from clip4str.serving.versions import bundle_version


def test_words_are_the_recognizers_over_grpc_and_http(grpc_client, http_client, crop_words):
    import tritonclient.grpc as grpc
    import tritonclient.http as http

    for one, kind in ((grpc_client, grpc), (http_client, http)):
        for start in range(0, len(CROPS), MAX_BATCH):
            part = slice(start, start + MAX_BATCH)
            result = one.infer(MODEL, inputs(kind, encoded(*(path.read_bytes() for path in CROPS[part]))))
            answer = answer_of(result)
            assert answer.texts == [[word.text] for word in crop_words[part]]
            assert np.abs(answer.confidences[:, 0] - [word.confidence for word in crop_words[part]]).max() < 1e-5
            assert answer.bundles == {bundle_version(Bundle.open(PACKAGED).manifest)} and answer.version == "1"
            for row, word in zip(result.as_numpy("char_confidence")[:, 0], crop_words[part]):
                assert np.abs(row[: len(word.text)] - word.char_confidences).max() < 1e-5
                assert not row[len(word.text) :].any()


def test_pixels_in_either_order_of_colours(grpc_client, crop_words):
    import tritonclient.grpc as grpc

    for path, word in list(zip(CROPS, crop_words))[:6]:
        array = np.asarray(Image.open(path).convert("RGB"))
        assert answer_of(grpc_client.infer(MODEL, inputs(grpc, {"pixels": array[None]}))).texts == [[word.text]]
        turned = {"pixels": np.ascontiguousarray(array[None, ..., ::-1])}
        answer = answer_of(grpc_client.infer(MODEL, inputs(grpc, turned), parameters={"layout": "bgr"}))
        assert answer.texts == [[word.text]] and abs(answer.confidences[0, 0] - word.confidence) < 1e-5


def test_a_frames_quads_are_read_quads(grpc_client, recognizer, frame, crop_words):
    import tritonclient.grpc as grpc

    pixels, quads = frame
    expected = recognizer.read_quads(pixels, quads)
    assert [word.text for word in expected] == [word.text for word in crop_words[:4]]
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
        sent = inputs(grpc, {**tensors, "quads": quads[None]})
        answer = answer_of(grpc_client.infer(MODEL, sent, parameters=parameters))
        assert answer.texts == [[word.text for word in wanted]]
        assert np.abs(answer.confidences[0] - [word.confidence for word in wanted]).max() < 1e-5


def test_requests_of_many_clients_are_read_together(triton, grpc_client, crop_words, frame):
    pixels, quads = frame
    before = counts(triton)
    many = [encoded(path.read_bytes()) for path in CROPS] + [{"pixels": pixels[None], "quads": quads[None]}] * 2
    answers = together(grpc_client, MODEL, many)
    of_frame = [word.text for word in crop_words[:4]]
    assert [answer.texts[0] for answer in answers] == [*([word.text] for word in crop_words), of_frame, of_frame]
    read, executed, sizes = (now if isinstance(now, dict) else now - then for now, then in zip(counts(triton), before))
    assert read == len(many) and executed < read / 2, (read, executed, sizes)
    assert max(sizes) > MAX_BATCH // 2


def test_pictures_of_different_sizes_are_read_together(triton, grpc_client, crop_words):
    pictures = [np.asarray(Image.open(path).convert("RGB")) for path in CROPS[:16]]
    assert len({picture.shape for picture in pictures}) > 8
    before = counts(triton)
    answers = together(grpc_client, MODEL, [{"pixels": picture[None]} for picture in pictures])
    assert [answer.texts for answer in answers] == [[[word.text]] for word in crop_words[:16]]
    assert counts(triton)[1] - before[1] <= 8


def test_instances_share_the_cores(triton):
    """Two processes; each says in the log which bundle it has, and how many threads."""
    from clip4str.core.cpu import available_threads

    said = re.findall(r'"clip4str-small-fp32@\w+ on OrtBackend, threads: (\d+)"', triton.log.read_text())
    assert sorted(map(int, said)) == sorted([1, 1, *[max(1, available_threads() // 2)] * 2])  # two that say --threads 1


def test_a_new_version_takes_over_and_no_request_is_lost(triton, triton_repository, tiny_bundle, crop_words):
    """Every answer is of the network that it names."""
    import tritonclient.grpc as grpc

    with Recognizer.load(tiny_bundle, "onnxruntime", threads=1) as other:
        theirs = [word.text for word in other.read(CROPS[:4])]
    ours = [word.text for word in crop_words[:4]]
    versions = {bundle_version(Bundle.open(PACKAGED).manifest): ("1", ours),
                bundle_version(Bundle.open(tiny_bundle).manifest): ("2", theirs)}  # fmt: skip
    (triton_repository / "clip4str.json").write_text(json.dumps({"model": "rolling", "form": "python"}))
    add_version(Bundle.open(tiny_bundle), triton_repository, str)
    (triton_repository / "rolling" / ".3.building-00").mkdir()  # one more is being written meanwhile
    seen, failed, stop = [], [], threading.Event()

    def ask() -> None:
        with grpc.InferenceServerClient(f"127.0.0.1:{triton.grpc}") as own:
            number = 0
            while not stop.is_set():
                number = (number + 1) % 4
                try:
                    answer = answer_of(own.infer("rolling", inputs(grpc, encoded(CROPS[number].read_bytes()))))
                    (name,) = answer.bundles
                    seen.append((name, answer.version, answer.texts[0][0], number))
                except Exception as error:
                    failed.append(error)

    clients = [threading.Thread(target=ask) for _ in range(4)]
    for one in clients:
        one.start()
    while len(seen) < 20 and not failed:
        stop.wait(0.01)
    status, body = triton.get("/v2/repository/models/rolling/load", "POST")
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
    listed = json.loads(triton.get("/v2/repository/index", "POST")[1])
    assert {one["version"]: one["state"] for one in listed if one["name"] == "rolling"}["2"] == "READY"
