"""Small networks on the torch backend, and a stand-in for CUDA graphs that a CPU can replay."""

from __future__ import annotations

import torch

from clip4str.core.driver import PredictAndRefine
from clip4str.core.reading import Decoding
from clip4str.runtime.backends.fixed_passes import Passes
from clip4str.runtime.backends.pytorch import TorchBackend, make_program
from clip4str.runtime.backends.pytorch.weights import pack, source_of_model

CPU = torch.device("cpu")


def driver_of(model, decoding=None):
    return PredictAndRefine(model.charset, model.tokenizer, model.config.steps, decoding or Decoding())


def backend_of(model, decoding=None, passes=None, batch_size=64, layer=None, dtype=torch.float32, device=CPU):
    driver = driver_of(model, decoding)
    weights = pack(source_of_model(model, "test"), dtype, device, driver.decoding.branch == "visual")
    program = make_program(weights, driver, Passes(*passes) if passes else None)
    return TorchBackend(weights, program, batch_size, layer), driver


def images(n, model, seed=0):
    return torch.randn(n, 3, *model.config.image_size, generator=torch.Generator().manual_seed(seed))


class Replayed:
    """A graph layer whose recordings are replayed by calling. What CUDA would do otherwise is checked: no recording may
    depend on values that the host saw while it was made."""

    def __init__(self, memory_for=256):
        self.memory_for, self.captured, self.replayed = memory_for, [], []

    def capture(self, run):
        (rows,) = run.args
        if rows > self.memory_for:
            raise torch.cuda.OutOfMemoryError("out of memory while a CUDA graph was captured")
        run()
        self.captured.append(rows)

        def replay():
            self.replayed.append(rows)
            run()

        return replay
