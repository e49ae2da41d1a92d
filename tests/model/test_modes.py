"""decode, refine, branch and charsets: every mode equals the naive one-image oracle."""

import itertools

import numpy as np
import pytest
import torch
from oracle import read_alone

from clip4str.core.errors import CharsetError, ImageError, UsageError
from clip4str.model import Clip4Str
from clip4str.runtime import Decoding

MODES = [*itertools.product(("ar", "nar"), (0, 1, 2), ("cross", "visual"))]


@pytest.mark.parametrize(("decode", "refine", "branch"), MODES)
def test_every_mode_equals_the_oracle(decode, refine, branch, random_model):
    model = random_model(seed=5)
    model.decoding = Decoding(decode, refine, branch)
    pixels = torch.randn(12, 3, 32, 64, generator=torch.Generator().manual_seed(1))
    reading = model.read(pixels)
    logits = model(pixels)
    assert logits.shape == (12, 26, 95)
    for row in range(12):
        want = read_alone(model, pixels[row : row + 1], decode, refine, branch)
        word = reading.ids[row][: len(want["ids"])].tolist()
        assert word == want["ids"]
        assert (reading.ids[row][len(want["ids"]) :] == 0).all()
        np.testing.assert_allclose(reading.confidence[row], np.prod(want["probs"]), rtol=1e-3)
        ids = logits[row].argmax(-1).tolist()
        assert ids[: len(want["ids"])] == want["ids"]
        shown = slice(0, len(want["probs"]))
        np.testing.assert_allclose(logits[row, shown], want["logits"][shown], atol=1e-3)


def test_refine_0_logits_are_certain_of_the_end_after_the_word(random_model):
    model = random_model(seed=5)
    model.decoding = Decoding(refine=0)
    pixels = torch.randn(6, 3, 32, 64, generator=torch.Generator().manual_seed(3))
    ids = model.read(pixels).ids
    assert (model(pixels).argmax(-1).numpy() == ids).all()


def test_a_free_charset_and_test_charset(random_model):
    model = random_model(seed=2, charset="abcDEF12é", charset_test="abcdef12")
    pixels = torch.randn(8, 3, 32, 64, generator=torch.Generator().manual_seed(2))
    reading = model.read(pixels)
    assert model(pixels).shape == (8, 26, 10)
    for row in range(8):
        want = read_alone(model, pixels[row : row + 1])
        assert reading.ids[row][: len(want["ids"])].tolist() == want["ids"]


def test_a_test_charset_of_which_the_network_writes_a_part_is_a_filter(random_model):
    model = random_model(charset_test="abcß")
    assert model.charset.caption(model.charset.encode("Aab!")) == "aab" and "keep the 3 of" in model.charset.note
    with pytest.raises(CharsetError, match="'ßẞ'"):
        Clip4Str(model.config, charset_test="ßẞ")


def test_wrong_pixels_and_options(random_model):
    model = random_model()
    wrong_pixels = [torch.zeros(1, 3, 64, 32), torch.zeros(0, 3, 32, 64), torch.zeros(1, 3, 32, 64).half()]
    for pixels in wrong_pixels:
        with pytest.raises(ImageError, match=r"takes torch\.float32 \(N, 3, 32, 64\)"):
            model(pixels)
    for wrong in ({"decode": "beam"}, {"branch": "text"}, {"refine": -1}):
        with pytest.raises(UsageError):
            Decoding(**wrong)
