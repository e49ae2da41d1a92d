"""What the Python model does with a batch of requests, without a server."""

from __future__ import annotations

import builtins
import json
from pathlib import Path

import numpy as np
import pytest
from batch_inputs import CROPS

from clip4str.core.errors import BackendError, Clip4StrError, ShapeError, UsageError
from clip4str.runtime import Word
from clip4str.serving.triton import reading, served_model
from clip4str.serving.triton.reading import Failed, read_requests
from clip4str.serving.triton.served_model import check_numpy, instances_of, open_recognizer, output_arrays
from clip4str.serving.triton.triton_request import Asked, asked, said

QUADS = np.array([[[[5, 5], [60, 5], [60, 30], [5, 30]], [[10, 8], [70, 9], [70, 36], [10, 35]]]], np.float32)


def never(error):
    raise AssertionError(error)


@pytest.mark.parametrize("most", [reading.FRAME_PIXELS, 1])
def test_frames_are_read_in_groups_that_fit_memory(recognizer, monkeypatch, most):
    """However they are grouped, and whatever is wrong with some of them."""
    monkeypatch.setattr(reading, "FRAME_PIXELS", most)
    frames = np.random.default_rng(0).integers(0, 256, (3, 40, 80, 3), np.uint8)
    crop = CROPS[0].read_bytes()
    requests = [
        Asked(list(frames[:2]), QUADS.repeat(2, 0)),
        Asked([crop, crop[:100]], QUADS.repeat(2, 0)),
        Asked([frames[2]], QUADS, turn=False),
        Asked([frames[2]], QUADS * np.nan),
        Asked([crop, crop]),
    ]
    found = read_requests(recognizer, requests, never)
    for row in range(2):
        assert found[0][row] == recognizer.read_quads(frames[row], QUADS[0])
    assert str(found[1]).startswith("ImageError: picture 1: damaged image")
    assert found[2] == [recognizer.read_quads(frames[2], QUADS[0], turn=False)]
    assert str(found[3]).startswith("ShapeError: picture 0: quad 0 of 2: corners are finite numbers")
    assert found[4] == [[word] for word in recognizer.read([crop, crop])]


def test_what_no_caller_did_is_told_to_the_log_alone(recognizer, monkeypatch):
    told = []
    for error in (BackendError("/srv/models/image.onnx failed"), MemoryError(), RuntimeError("/usr/lib/x.so")):
        monkeypatch.setattr(recognizer.backend, "read", lambda *_, error=error: (_ for _ in ()).throw(error))
        found = read_requests(recognizer, [Asked([CROPS[0].read_bytes()])] * 2, told.append)
        assert [str(one) for one in found] == ["InternalError: the server's log says what went wrong"] * 2
        assert all(isinstance(one, Failed) for one in found) and told.pop() is error


def test_requests_that_are_none():
    crop, grey = np.array([[b"x"]], object), np.zeros((1, 8, 8, 3), np.uint8)
    for arguments, why in (
        ((crop, grey, None, ""), "not both"),
        ((None, None, QUADS, ""), "not both"),
        ((None, grey, None, json.dumps({"layout": "nv12"})), "layout nv12 is for frames"),
        ((None, grey, None, json.dumps({"matrix": "bt601"})), "matrix: for frames"),
        ((None, grey, QUADS, json.dumps({"matrix": "bt601"})), "matrix: for layout nv12"),
        ((None, grey, None, json.dumps({"turn": 1})), "turn is a bool, not '1'"),
        ((None, grey[..., :2], None, json.dumps({"layout": "bgr"})), "expected BGR"),
        ((None, grey, QUADS, json.dumps({"layout": "nv12"})), "expected NV12 of shape"),
        ((crop.repeat(2, 0), None, QUADS, ""), "expected shape (2, Q, 4, 2)"),
        ((crop.repeat(2, 1), None, None, ""), "expected shape (N, 1)"),
    ):
        with pytest.raises((UsageError, ShapeError)) as caught:
            asked(*arguments)
        assert why in str(caught.value)
        assert said(caught.value).startswith(f"{type(caught.value).__name__}: ")


def test_answers_are_as_large_as_their_largest():
    words = [
        [Word("ab", 0.5, (0.9, 0.8), "hint"), Word("", 0.25, ())],
        [Word("é", 1.0, (1.0,)), Word("x", 0.5, (0.5,))],
    ]
    arrays = output_arrays(words, "v")
    assert arrays["text"].tolist() == [[b"ab", b""], ["é".encode(), b"x"]]
    assert arrays["confidence"].tolist() == [[0.5, 0.25], [1.0, 0.5]]
    assert np.allclose(arrays["char_confidence"], [[[0.9, 0.8], [0, 0]], [[1, 0], [0.5, 0]]])
    assert arrays["hint"].tolist() == [[b"hint", b""], [b"", b""]] and arrays["bundle"].tolist() == [[b"v"], [b"v"]]
    empty = output_arrays([[]], "v")
    assert empty["text"].shape == (1, 0) and empty["char_confidence"].shape == (1, 0, 0)


def test_instances_share_threads_and_stay_where_they_are_put(monkeypatch):
    asked_for = []
    monkeypatch.setattr(served_model.Recognizer, "load", lambda *args, **how: asked_for.append((args[1], how)))
    monkeypatch.setattr(served_model, "available_threads", lambda: 8)
    cpu = {"model_instance_kind": "CPU", "model_instance_device_id": "0"}
    gpu = {"model_instance_kind": "GPU", "model_instance_device_id": "2"}

    def opened(backend, threads, groups, args):
        own = {"backend": {"string_value": backend}, "threads": {"string_value": threads}}
        open_recognizer(Path("x"), {"parameters": own, "instance_group": groups, "max_batch_size": 5}, args)
        name, how = asked_for.pop()
        return name, how["threads"], how["device"], how["batch_size"]

    assert opened("auto", "auto", [{"count": 3}], cpu) == ("onnxruntime", 2, None, 5)
    assert opened("torch", "auto", [{"count": 16}], cpu) == ("torch", 1, "cpu", 5)
    assert opened("auto", "3", [{"count": 3}], cpu) == ("onnxruntime", 3, None, 5)
    assert opened("tensorrt", "auto", [{"count": 2, "gpus": [0, 2]}], gpu) == ("tensorrt", 2, "cuda:2", 5)
    with pytest.raises(BackendError, match="tensorrt needs a GPU"):
        opened("tensorrt", "auto", [], cpu)
    assert instances_of({"instance_group": [{"count": 2, "gpus": [0, 1]}, {"count": 1}]}) == 5 and instances_of({}) == 1


def test_a_python_backend_older_than_numpy_2_is_refused(monkeypatch):
    check_numpy("2.4.0")
    monkeypatch.setitem(vars(builtins), "__pybind11_internals_v4_gcc__", None)
    check_numpy("1.26.4")
    with pytest.raises(Clip4StrError, match="its Python needs 'numpy<2'"):
        check_numpy("2.4.0")
