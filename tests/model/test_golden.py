"""The network against the published implementation's own outputs."""

import numpy as np
import pytest
import torch

from clip4str.model import load_checkpoint

SIZES = [
    "tiny",
    "tiny-charset94",
    "base16",
    *(pytest.param(name, marks=pytest.mark.slow) for name in ("base32", "large", "huge")),
]


class Spy:
    """The model's stages, with the captions' tokens written down as the text tower gets them."""

    def __init__(self, model):
        self.model, self.bpe = model, []
        self.flexible_steps = model.flexible_steps
        self.image, self.visual, self.cross, self.stack = model.image, model.visual, model.cross, model.stack

    def text(self, bpe):
        self.bpe += [tuple(row) for row in bpe.tolist()]
        return self.model.text(bpe)


@pytest.mark.parametrize("name", SIZES)
def test_logits_and_words_equal_the_published_ones(name, golden, golden_checkpoint):
    want = golden(name)
    model = load_checkpoint(golden_checkpoint(name), charset_test=str(want["charset_test"]))
    pixels = torch.from_numpy((want["images"] / np.float32(255) - 0.5) / 0.5).float().permute(0, 3, 1, 2)
    memory = model.clip_model.visual(pixels)
    np.testing.assert_allclose(memory[:, :4, :8], want["memory_corner"], atol=1e-3)
    logits = model(pixels)
    assert logits.shape == want["logits"].shape and logits.dtype == torch.float32
    np.testing.assert_allclose(logits, want["logits"], atol=1e-3)
    reading = model.read(pixels)
    assert [model.charset.decode(ids) for ids in reading.ids] == want["text"].tolist()
    np.testing.assert_allclose(reading.confidence, want["confidence"], rtol=2e-3)


@pytest.mark.parametrize("name", ["tiny", "tiny-charset94"])
def test_captions_reach_the_text_tower_as_published(name, golden, golden_checkpoint):
    from clip4str.core.driver import PredictAndRefine

    want = golden(name)
    model = load_checkpoint(golden_checkpoint(name), charset_test=str(want["charset_test"]))
    pixels = torch.from_numpy((want["images"] / np.float32(255) - 0.5) / 0.5).float().permute(0, 3, 1, 2)
    for row in range(len(pixels)):
        spy = Spy(model)
        with torch.inference_mode():
            PredictAndRefine(model.charset, model.tokenizer, model.config.steps)(spy, pixels[row : row + 1])
        expected = [tuple(want["tokens_1"][row].tolist())]
        if want["caption_2"][row] != want["caption_1"][row]:
            expected.append(tuple(want["tokens_2"][row].tolist()))
        assert spy.bpe == expected
