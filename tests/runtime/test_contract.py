"""The Backend contract: what wraps a backend sees the way that production reads, and can take no other."""

from __future__ import annotations

import inspect

import numpy as np
import pytest

from clip4str.benchmarks.forcing import ForcedBackend, Forcing
from clip4str.benchmarks.latency_sides import BundleSide
from clip4str.core.errors import ImageError, UsageError
from clip4str.core.masks import Rule
from clip4str.runtime import Recognizer
from clip4str.runtime.backends.contract import Backend, Wrapper


class Recording(Wrapper):
    """Writes down every call of a stage: its name, shapes and rule."""

    def __init__(self, inner):
        super().__init__(inner)
        self.calls = []

    def image(self, pixels):
        return self.note("image", pixels, made=super().image(pixels))

    def visual(self, tokens, rule, visual_kv):
        return self.note("visual", tokens, rule, made=super().visual(tokens, rule, visual_kv))

    def text(self, bpe):
        return self.note("text", bpe, made=super().text(bpe))

    def cross(self, tokens, rule, cross_kv, text_kv):
        return self.note("cross", tokens, rule, made=super().cross(tokens, rule, cross_kv, text_kv))

    def note(self, stage, given, rule=None, made=None):
        how = (rule.mode, rule.keep.tolist(), rule.queries) if isinstance(rule, Rule) else None
        self.calls.append((stage, given.shape, how))
        return made


def recording(recognizer):
    return Recognizer(recognizer.bundle, Recording(recognizer.backend), recognizer.driver)


@pytest.fixture(scope="module")
def onnx(tiny_bundle):
    return Recognizer.load(tiny_bundle, "onnxruntime", threads=1)


def test_the_timed_path_is_productions(onnx, golden):
    images = list(golden("tiny")["images"][:6])
    production, timed = recording(onnx), recording(onnx)
    words = [word.text for word in production.read(images)]
    turn = BundleSide(timed).turn(images)
    assert turn.words == words == golden("tiny")["text"][:6].tolist()
    assert timed.backend.calls == production.backend.calls and len(production.backend.calls) > 5
    assert turn.calls == {
        "prepare": 1,
        **{s: [c[0] for c in timed.backend.calls].count(s) for s in turn.calls if s != "prepare"},
    }


def test_a_program_is_timed_as_one(golden, golden_checkpoint, monkeypatch):
    recognizer = Recognizer.load(golden_checkpoint("tiny"), "torch", device="cpu", threads=1)
    ran, run = [], recognizer.backend._run_program
    monkeypatch.setattr(recognizer.backend, "_run_program", lambda *args: ran.append(1) or run(*args))
    images = list(golden("tiny")["images"][:4])
    words, timed = [word.text for word in recognizer.read(images)], recording(recognizer)
    turn = BundleSide(timed).turn(images)
    assert turn.words == words and ran == [1, 1] and timed.backend.calls == []
    assert turn.calls["program"] == 1 and turn.calls["image"] == 0
    with pytest.raises(UsageError, match="a single program"):
        ForcedBackend(timed.backend, Forcing(6, 3, 2), recognizer.driver)


def test_a_wrapper_passes_everything_on():
    """Whatever is added to the contract later is forwarded, or this fails."""
    methods = {name for name, value in inspect.getmembers(Backend) if not name.startswith("_") and callable(value)}
    methods |= {name for name, value in vars(Backend).items() if isinstance(value, property)}
    assert methods <= vars(Wrapper).keys() and len(methods) > 8
    values = {name: f"of {name}" for name in (*Backend.__annotations__, "image_size", "batch_size")}
    inner = type(
        "Inner", (Backend,), {name: Wrapper.__dict__[name] for name in ("image", "visual", "text", "cross", "stack")}
    )
    inner.__abstractmethods__ = frozenset()
    made = inner((32, 64), 7)
    for name, value in values.items():
        setattr(made, name, value)
    assert {name: getattr(Recording(made), name) for name in values} == values


@pytest.mark.parametrize(
    ("pixels", "error"),
    [
        ([[1.0]], "pixels are a list, expected float32"),
        (np.zeros((1, 3, 9, 9), np.float32), r"pixels are float32 \(1, 3, 9, 9\)"),
        (np.zeros((1, 3, 64, 64)), "pixels are float64"),
    ],
)
def test_defaults_of_the_contract(onnx, pixels, error):
    with pytest.raises(ImageError, match=error):
        onnx.backend.accept(pixels)
    assert onnx.backend.largest == onnx.batch_size == 16
