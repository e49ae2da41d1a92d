"""A branch of the program's graph: what runs on it, and when."""

from __future__ import annotations

import contextlib

import pytest
import torch
from test_pytorch_program import same
from torch_networks import backend_of, images

from clip4str.core.reading import Decoding
from clip4str.kernels.options import Options, using
from clip4str.runtime.backends.pytorch import beside as module
from clip4str.runtime.backends.pytorch import program as program_module


@pytest.mark.parametrize("decoding", [Decoding(), Decoding("nar"), Decoding(branch="visual")])
def test_when_the_branch_runs_changes_no_answer(decoding, random_model, monkeypatch):
    """As soon as it forks off, or only when it is joined: so it and what runs beside it need nothing of each other."""
    model = random_model(seed=3, eos_bias=3.5)
    backend, driver = backend_of(model, decoding)
    pixels, forks = images(12, model), []

    def early(work, device):
        result = work()
        forks.append(device)
        return lambda: result

    late = backend.read(driver, pixels)
    monkeypatch.setattr(program_module, "beside", early)
    same(backend.read(driver, pixels), late)
    model.decoding = decoding
    same(late, model.read(pixels))
    assert forks


class Streams:
    """What is asked of torch's streams."""

    def __init__(self, monkeypatch, capturing=True):
        self.log = log = []
        main, made = self, []

        class Stream:
            def __init__(self, device=None):
                made.append(self)
                self.name = f"branch {len(made)}"

            def wait_stream(self, other):
                log.append(f"{self.name} waits for {other.name}")

        self.current = Stream.__new__(Stream)
        self.current.name = "main"

        @contextlib.contextmanager
        def stream(chosen):
            before, main.current = main.current, chosen
            yield
            main.current = before

        monkeypatch.setattr(torch.cuda, "Stream", Stream)
        monkeypatch.setattr(torch.cuda, "stream", stream)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: main.current)
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: capturing)

    def launch(self, what):
        self.log.append(f"{what} on {self.current.name}")
        return what


def test_a_branch_waits_where_it_forks_off_and_is_waited_for_where_it_is_joined(monkeypatch):
    streams = Streams(monkeypatch)
    with using(Options(fork=True)):
        join = module.beside(lambda: streams.launch("refinement"), torch.device("cuda"))
        streams.launch("text tower")
        assert join() == "refinement"
        streams.launch("last pass")
    assert streams.log == [
        "branch 1 waits for main",
        "refinement on branch 1",
        "text tower on main",
        "main waits for branch 1",
        "last pass on main",
    ]


@pytest.mark.parametrize(
    "asked, capturing, device", [(False, True, "cuda"), (True, False, "cuda"), (True, True, "cpu")]
)
def test_without_a_capture_or_the_switch_all_is_one_stream(asked, capturing, device, monkeypatch):
    streams = Streams(monkeypatch, capturing)
    with using(Options(fork=asked)):
        join = module.beside(lambda: streams.launch("refinement"), torch.device(device))
        streams.launch("text tower")
        join()
    assert streams.log == ["text tower on main", "refinement on main"]
