"""A branch of the program's graph: what runs on it, and when."""

from __future__ import annotations

import contextlib
import weakref
from dataclasses import replace

import pytest
import torch
from test_pytorch_program import MODES, NETWORKS, same
from torch_networks import backend_of, images

from clip4str.core.errors import BackendError
from clip4str.core.reading import Decoding
from clip4str.kernels.options import Options, using
from clip4str.runtime.backends.fixed_passes import Passes
from clip4str.runtime.backends.pytorch import beside as module
from clip4str.runtime.backends.pytorch import program as program_module
from clip4str.runtime.backends.pytorch.stages import patches_of


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

        monkeypatch.setattr(module, "_streams", {})
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


EARLY = Options(verify_beside=True)


@pytest.mark.parametrize("network", range(len(NETWORKS)))
def test_what_begins_before_the_last_pass_reads_the_same(network, random_model):
    """Whatever the network and the mode, also where most rows have to be read further."""
    model = random_model(seed=network, **NETWORKS[network])
    pixels = images(20, model, seed=network)
    for decoding in MODES:
        model.decoding = decoding
        want = model.read(pixels)
        for passes in (None, (2, 2), (9, 1)):
            with using(EARLY):
                backend, driver = backend_of(model, decoding, passes=passes)
                same(backend.read(driver, pixels), want)


@pytest.mark.parametrize("branch", ["visual", "cross"])
def test_a_row_whose_last_pass_moves_the_end_alone_is_read_further_and_no_other(branch, random_model):
    """Its own word is settled, but what follows has begun with a longer or a shorter one."""
    model = random_model(seed=3, eos_bias=3.5)
    pixels, (visual, cross) = images(200, model), (3, 2) if branch == "visual" else (26, 2)
    backend, driver = backend_of(model, passes=(visual, cross))
    program, patches = backend.program, patches_of(pixels, backend.weights)
    fewer = Passes(visual - (branch == "visual"), cross - (branch == "cross"))
    names = ("word", "last", "unsettled") if branch == "visual" else ("cross_word", "keep", "cross_unsettled")
    places = [program.columns[name] for name in names]
    with torch.inference_mode():
        word, last, usual = (program.run(patches)[0][:, place] for place in places)
        before = replace(program, passes=fewer).run(patches)[0][:, places[0]]
        with using(EARLY):
            same_word, _, early = (program.run(patches)[0][:, place] for place in places)
    assert torch.equal(word, same_word), "what is read further begins with the last pass's word"
    changed = (before != word) & (torch.arange(word.shape[1]) <= last)
    assert torch.equal(early[:, 0], changed.any(1).int())
    assert (usual <= early).all() and (usual < early).any()
    with using(EARLY):
        same(backend.read(driver, pixels), model.read(pixels))


def test_too_few_passes_are_no_guess_in_silence(random_model):
    backend, driver = backend_of(model := random_model(), passes=(1, 1))
    with pytest.raises(BackendError, match="0 passes towards a word"):
        backend.read(driver, images(2, model))


def test_all_graphs_use_the_same_streams_and_a_join_holds_what_its_branch_reads(monkeypatch):
    """torch hands out its streams in turn: others would soon get a branch's."""
    streams, read = Streams(monkeypatch), torch.zeros(3)
    kept = weakref.ref(read)
    with using(EARLY):
        joins = [module.beside(lambda read=read: streams.launch("pass"), torch.device("cuda")) for _ in range(9)]
    assert {line for line in streams.log if "pass" in line} == {f"pass on branch {i}" for i in (1, 2, 3)}
    del read
    assert kept() is not None
    for join in joins:
        assert join() == "pass"


FLOW = {
    "cross": """
        visual start on main
        visual causal on main
        branch 1 waits for main
        visual causal on branch 1
        branch 2 waits for main
        visual cloze on branch 2
        text tower on main
        cross causal on main
        branch 3 waits for main
        cross causal on branch 3
        main waits for branch 2
        cross cloze on main
        main waits for branch 1
        main waits for branch 3
    """,
    "visual": """
        visual start on main
        visual causal on main
        branch 1 waits for main
        visual causal on branch 1
        branch 2 waits for main
        visual cloze on branch 2
        main waits for branch 2
        main waits for branch 1
    """,
}


@pytest.mark.parametrize("branch", FLOW)
def test_last_passes_run_beside_what_follows_and_are_joined(branch, random_model, monkeypatch):
    backend, _ = backend_of(random_model(), Decoding(branch=branch))
    program, streams = backend.program, Streams(monkeypatch)
    decode_pass, text_tower = program_module.decode_pass, program_module.text_tower

    def logged_pass(decoder, *args, mode, **kwargs):
        streams.launch(f"{'visual' if decoder is program.weights.visual else 'cross'} {mode}")
        return decode_pass(decoder, *args, mode=mode, **kwargs)

    def logged_text(*args):
        streams.launch("text tower")
        return text_tower(*args)

    monkeypatch.setattr(program_module, "decode_pass", logged_pass)
    monkeypatch.setattr(program_module, "text_tower", logged_text)
    monkeypatch.setattr(program_module, "beside", lambda work, device: module.beside(work, torch.device("cuda")))
    patches = patches_of(images(3, random_model()), backend.weights)
    with using(EARLY), torch.inference_mode():
        program.run(patches)
    assert streams.log == [line.strip() for line in FLOW[branch].strip().splitlines()]
