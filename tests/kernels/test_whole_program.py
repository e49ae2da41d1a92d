"""The torch backend's program through every Triton kernel at once, in the interpreter, against the network."""

import importlib

import numpy as np
import pytest
import torch
from device import needs_interpreter

from clip4str.core.driver import PredictAndRefine
from clip4str.core.reading import Decoding
from clip4str.runtime.backends.fixed_passes import Passes
from clip4str.runtime.backends.pytorch import TorchBackend, make_program
from clip4str.runtime.backends.pytorch.weights import pack, source_of_model

OPERATORS = ("linear", "cross_attention", "decode_pass", "tokenize", "collapse")


@needs_interpreter
@pytest.mark.slow
@pytest.mark.parametrize("decoding", [Decoding(), Decoding("nar", branch="visual")])
def test_reads_what_the_network_reads(decoding, random_model, monkeypatch):
    launched = set()

    def always(name):
        def use_kernel(device, implementation):
            launched.add(name)
            return True

        return use_kernel

    for name in OPERATORS:
        monkeypatch.setattr(importlib.import_module(f"clip4str.kernels.{name}.api"), "use_kernel", always(name))
    model = random_model(seed=3, image_size=(16, 32), image_layers=1, steps=5, decoder_mlp=32, draft_frames=4)
    model.decoding = decoding
    driver = PredictAndRefine(model.charset, model.tokenizer, model.config.steps, decoding)
    weights = pack(source_of_model(model, "test"), torch.float32, torch.device("cpu"), decoding.branch == "visual")
    backend = TorchBackend(weights, make_program(weights, driver, Passes(3, 2)), 16, None)
    pixels = torch.randn(2, 3, 16, 32, generator=torch.Generator().manual_seed(0))
    got, want = backend.read(driver, pixels), model.read(pixels)
    np.testing.assert_array_equal(got.ids, want.ids)
    np.testing.assert_allclose(got.probs, want.probs, atol=1e-4)
    assert launched == set(OPERATORS if decoding.branch == "cross" else OPERATORS[:3])
