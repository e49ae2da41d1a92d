"""What the stage graphs compute, against the golden outputs and the torch network."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clip4str.core.bpe import BytePairTokenizer
from clip4str.core.driver import PredictAndRefine
from clip4str.core.errors import CheckpointError
from clip4str.core.text import Charset
from clip4str.export import graph as graph_module
from clip4str.export.bundles import build_bundle
from clip4str.export.parity import compared, max_difference, measure
from clip4str.export.stage_files import stage_graph, write_stages
from clip4str.model import save_checkpoint
from clip4str.runtime.backends.ort import OrtBackend
from clip4str.runtime.bundle import Bundle


def read_golden(folder, pixels):
    bundle = Bundle.open(folder)
    m = bundle.manifest
    tokenizer = BytePairTokenizer(m.config["vocabulary"], m.config["context"])
    driver = PredictAndRefine(Charset(m.charset, m.charset_test), tokenizer, m.config["steps"])
    reading = driver(OrtBackend(bundle, threads=1), pixels, full_logits=True)
    return reading, [driver.charset.decode(ids) for ids in reading.ids]


def test_float32_gives_the_golden_answers(tiny_bundle, golden, golden_pixels):
    reading, words = read_golden(tiny_bundle, golden_pixels)
    assert np.abs(reading.logits - golden("tiny")["logits"]).max() < 1e-3
    assert words == list(golden("tiny")["text"])


def test_captions_that_keep_case(golden, golden_checkpoint, tmp_path):
    arrays = golden("tiny-charset94")
    folder = build_bundle(golden_checkpoint("tiny-charset94"), tmp_path / "b", charset_test=str(arrays["charset_test"]))
    pixels = ((arrays["images"] / 255 - 0.5) / 0.5).astype(np.float32).transpose(0, 3, 1, 2).copy()
    reading, words = read_golden(folder, pixels)
    assert np.abs(reading.logits - arrays["logits"]).max() < 1e-3
    assert words == list(arrays["text"])


def test_half_precision_agrees_on_most(half_bundle, golden, golden_pixels):
    reading, words = read_golden(half_bundle, golden_pixels)
    same = np.array([a == b for a, b in zip(words, golden("tiny")["text"])])
    assert same.mean() >= 0.8
    assert np.abs(reading.logits - golden("tiny")["logits"])[same].max() < 0.1


class AnyMask:
    """In a Rule's place: graphs take every mask, also those that the driver never means."""

    def __init__(self, attend):
        self.attend, self.queries = attend, attend.shape[1]

    def mask(self, contents):
        assert contents == self.attend.shape[2]
        return self.attend


@pytest.mark.parametrize("n, t, s", [(1, 26, 26), (3, 1, 26), (2, 26, 1), (5, 7, 9), (4, 9, 7), (1, 1, 1)])
@pytest.mark.parametrize("precision, tolerance", [("fp32", 1e-4), ("fp16", 0.1)])
def test_any_batch_and_length(request, tiny_model, precision, tolerance, n, t, s):
    folder = request.getfixturevalue("tiny_bundle" if precision == "fp32" else "half_bundle")
    half = np.float32 if precision == "fp32" else np.float16
    stages, random = OrtBackend(Bundle.open(folder), threads=1), np.random.default_rng(n * 100 + t)
    pixels = random.standard_normal((n, 3, 64, 64)).astype(np.float32)
    bpe = tiny_model.tokenizer([f"word{i}" for i in range(n)])
    tokens = random.integers(0, 96, (n, s)).astype(np.int32)
    tokens[:, 0] = tiny_model.charset.start
    attend = random.random((n, t, s)) < 0.6
    attend[..., 0] = True
    rule = AnyMask(attend)
    with torch.inference_mode():
        visual_kv, cross_kv = tiny_model.image(torch.from_numpy(pixels))
        text_kv = tiny_model.text(bpe)
        calls = {
            "image": (torch.from_numpy(pixels),),
            "visual": (tokens, rule, visual_kv),
            "text": (bpe,),
            "cross": (tokens, rule, cross_kv, text_kv),
        }
        for stage, inputs in calls.items():
            want = getattr(tiny_model, stage)(*inputs)
            got = getattr(stages, stage)(*(i if i is rule else np.asarray(i) for i in inputs))
            for a, b in zip(compared(want), compared(got)):
                assert a.shape == b.shape and b.dtype == (half if stage in ("image", "text") else np.float32)
                assert max_difference(a, b) < tolerance, stage
            if stage in ("visual", "cross"):
                assert got.ids.dtype == np.int32 and got.probs.dtype == np.float32
                assert np.array_equal(got.ids, got.logits.argmax(-1))
                exp = np.exp(got.logits - got.logits.max(-1, keepdims=True))
                assert np.abs(got.probs - exp.max(-1) / exp.sum(-1)).max() < 1e-5


def test_hidden_content_does_not_matter(tiny_bundle, tiny_model):
    stages, random = OrtBackend(Bundle.open(tiny_bundle), threads=1), np.random.default_rng(3)
    kv = random.standard_normal((1, 2, 8, 17, 8)).astype(np.float32)
    tokens = random.integers(0, 96, (2, 1, 26)).astype(np.int32)
    tokens[1, :, :5] = tokens[0, :, :5]
    attend = np.zeros((1, 26, 26), bool)
    attend[..., :5] = True
    first, second = (stages.visual(t, AnyMask(attend), kv) for t in tokens)
    assert np.array_equal(first.logits, second.logits)


@pytest.mark.parametrize(
    "config",
    [
        {"image_size": (32, 128), "patch_size": (4, 8), "image_width": 128, "image_layers": 1},
        {"d": 48, "decoder_heads": 3, "steps": 11, "context": 9, "charset": "abcxyz", "charset_test": "abcxyz"},
        {"text_width": 128, "text_layers": 3, "decoder_mlp": 33, "vocabulary": 600},
    ],
)
def test_any_dimensions(random_model, config, tmp_path):
    model = random_model(seed=7, **config)
    save_checkpoint(model, tmp_path / "net.safetensors")
    folder = build_bundle(tmp_path / "net.safetensors", tmp_path / "bundle", min_agreement=0)
    pixels = np.random.default_rng(0).standard_normal((4, 3, *model.config.image_size)).astype(np.float32)
    parity = measure(model, OrtBackend(Bundle.open(folder), threads=1), pixels)
    assert all(s.calls > 0 and s.relative < 1e-4 for s in parity.stages.values())
    assert parity.agreement == 1


def test_weights_beyond_one_file(tiny_model, tiny_bundle, tmp_path, monkeypatch):
    monkeypatch.setattr(graph_module, "MAX_EMBEDDED_BYTES", 1_000_000)
    paths = write_stages(tiny_model, tmp_path, "fp32")
    assert {p.name for p in paths} >= {"image.onnx", "image.onnx.data", "text.onnx.data"}
    assert (tmp_path / "image.onnx").stat().st_size < 100_000
    import onnxruntime

    bpe = tiny_model.tokenizer(["hello", "there"])
    split, whole = (
        onnxruntime.InferenceSession(str(folder / "text.onnx")).run(None, {"bpe": bpe})[0]
        for folder in (tmp_path, tiny_bundle)
    )
    assert np.array_equal(split, whole)


def test_a_weight_beyond_half_precision_is_refused(random_model):
    model = random_model(seed=1)
    model.clip_model.visual.transformer.resblocks[1].mlp.c_fc.weight[3, 4] = 1e5
    with pytest.raises(CheckpointError, match=r"resblocks\.1\.mlp\.c_fc\.weight reaches 1e\+05.*--fp32"):
        stage_graph(model, "image", "fp16")
    stage_graph(model, "image", "fp32")


def test_weights_lost_to_half_precision_are_told(random_model):
    model = random_model(seed=1)
    model.clip_model.visual.transformer.resblocks[0].mlp.c_fc.weight[:32] *= 1e-9
    notes = stage_graph(model, "image", "fp16").notes
    assert len(notes) == 1 and "c_fc.weight" in notes[0] and "round to 0" in notes[0]
