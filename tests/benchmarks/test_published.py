"""The baseline is only worth beating if it is the published code's forward: golden logits and words."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from clip4str.benchmarks.published import Published
from clip4str.benchmarks.stopwatch import Stopwatch
from clip4str.model import load_checkpoint


@pytest.mark.parametrize("name", ["tiny", "tiny-charset94"])
def test_one_image_at_a_time_gives_the_golden_answers(name, golden, golden_checkpoint):
    arrays = golden(name)
    model = load_checkpoint(golden_checkpoint(name), charset_test=str(arrays["charset_test"]))
    published = Published(model)
    for pixels, logits, text in zip(normalised(arrays["images"]), arrays["logits"], arrays["text"]):
        out = published(pixels[None])
        assert out.shape == (1, *logits.shape)
        assert np.abs(out[0].numpy() - logits).max() < 1e-3
        assert published.words(out) == [text]


def test_the_early_stop_is_shared_by_the_batch(golden, golden_checkpoint):
    """As published: the shortest words of a batch run as many steps as its longest."""
    arrays = golden("tiny")
    model = load_checkpoint(golden_checkpoint("tiny"))
    lengths = [len(word) for word in arrays["visual_ar"]]
    short, long = int(np.argmin(lengths)), int(np.argmax(lengths))
    assert lengths[short] < lengths[long]
    pixels = normalised(arrays["images"])
    steps = {}
    for name, rows in (("short", [short]), ("both", [short, long])):
        stopwatch = Stopwatch()
        Published(model, stopwatch=stopwatch)(pixels[rows])
        assert stopwatch.calls["visual"] == stopwatch.calls["cross"]  # the last call of each refines
        assert (stopwatch.calls["image"], stopwatch.calls["text"]) == (1, 2)
        steps[name] = stopwatch.calls["visual"] - 1
    assert steps == {"short": lengths[short] + 1, "both": min(lengths[long] + 1, model.config.steps)}


def normalised(images: np.ndarray) -> torch.Tensor:
    return torch.from_numpy((images.transpose(0, 3, 1, 2).astype(np.float32) / 255 - 0.5) / 0.5)
