"""What the GPU suite compiles ahead, as far as the compiler: launched on the meta device, in a process of its own.

As a script it is that process: it launches everything and prints which kernels would have been compiled.
"""

from __future__ import annotations

import inspect
import json
import os
import pickle
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("triton")

sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))  # torch_networks
from sections import Kept
from torch_networks import backend_of

from clip4str.benchmarks.gpu import warm
from clip4str.benchmarks.gpu.device import StandIn
from clip4str.benchmarks.gpu.first import WORDS, each_kind, launch_kinds, launch_passes, sanitizer
from clip4str.benchmarks.gpu.kernels import sweep
from clip4str.benchmarks.gpu.networks import TINY
from clip4str.benchmarks.gpu.options import _same, launch_turned, time_options
from clip4str.kernels.options import Options
from clip4str.kernels.shared.ahead import launch_nothing, meta
from clip4str.model import load_checkpoint
from clip4str.model.checkpoint import BUNDLED
from clip4str.runtime.backends.pytorch.graphs import BUCKETS
from clip4str.runtime.backends.pytorch.prepared import launch_buckets

CAPABILITY, HALF = (9, 0), torch.float16
NETWORK = "small"


def main() -> None:
    keys: list[str] = []
    launch_nothing(CAPABILITY, lambda key: keys.append(key) is None)
    found: dict[str, object] = {}

    def note(name: str, launch, *arguments) -> None:
        keys.clear()
        try:
            launch(*arguments)
            error = ""
        except Exception as raised:
            error = f"{type(raised).__name__}: {raised}"
        found[name] = {"error": error, "keys": sorted(set(keys))}

    for operator in warm.OPERATORS:
        note(operator, warm.launch_all, [], (operator,), CAPABILITY, HALF, False)
        note(f"{operator}, first", launch_kinds, (operator,), CAPABILITY, HALF)
    note("sweep", warm.launch_configs, warm.OPERATORS, CAPABILITY, HALF)
    note("passes", launch_passes, WORDS)
    gpu = StandIn()
    gpu.half = HALF
    warm.NETWORKS = {NETWORK: warm.NETWORKS[NETWORK]}
    programs = warm._programs(gpu)
    note("programs", warm.launch_all, programs, (), CAPABILITY, HALF, False)
    note("turned", launch_turned, programs[0][0], [(Options(dependent_launch=True), 1)])
    for dtype in (HALF, torch.float32, torch.bfloat16):
        backend, _ = backend_of(load_checkpoint(BUNDLED), dtype=dtype)
        note(f"bundled {dtype}", launch_buckets, meta(backend.program), (256,))
    print(json.dumps(found))


@pytest.fixture(scope="module")
def launched() -> dict:
    environment = {**os.environ, "TRITON_INTERPRET": "0", "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, __file__], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def names(part: dict) -> set[str]:
    return {key.partition("[")[0] for key in part["keys"]}


def test_networks_are_compiled_for_the_rows_and_types_that_are_read(launched):
    programs = launched["programs"]
    assert names(programs) == {"linear_kernel", "normalize_kernel", "attend_kernel", "self_attention_kernel",
                               "head_kernel", "tokenize_kernel"}  # fmt: skip
    assert set(warm.NETWORKS["base16"][None]) == set(BUCKETS), "rows that are resumed are any number"
    assert not set(launched["turned"]["keys"]) & set(programs["keys"]), "with other switches other kernels"
    draft = {"collapse_kernel"}  # which networks of random weights do not have
    for bundled in (part for name, part in launched.items() if name.startswith("bundled")):
        assert draft == names({"keys": set(bundled["keys"]) - set(programs["keys"])})


def test_a_case_that_fails_keeps_no_other_from_being_compiled():
    called = []
    calls = [(name, partial(called.append if name == "b" else int, name)) for name in "abc"]
    with pytest.raises(RuntimeError, match=r"2 cases: a: ValueError: invalid literal"):
        warm.launch_each(calls)
    assert called == ["b"]


def test_every_operators_cases_launch_without_a_device(launched):
    assert {name: part["error"] for name, part in launched.items() if part["error"]} == {}
    assert [name for name, part in launched.items() if not part["keys"]] == []
    for operator in warm.OPERATORS:
        assert set(launched[f"{operator}, first"]["keys"]) <= set(launched[operator]["keys"])


def test_sections_ask_for_what_the_processes_can_launch(monkeypatch):
    """As on a GPU, up to the processes: there the launches above are made."""
    asked = []

    def note(launch, arguments, capability, processes, seconds) -> list[str]:
        inspect.signature(launch).bind(*pickle.loads(pickle.dumps(arguments)))
        asked.append((launch, capability))
        assert processes >= 1 and 1 <= seconds <= 100
        return ["a problem"]

    monkeypatch.setattr(warm, "compile_ahead", note)
    monkeypatch.setattr(shutil, "which", lambda name: "true")
    monkeypatch.setattr(warm, "NETWORKS", {NETWORK: warm.NETWORKS[NETWORK]})
    gpu = StandIn()
    gpu.kind = "cuda"
    sections = {
        launch_kinds: partial(each_kind, operators=()),
        launch_passes: sanitizer,
        warm.launch_all: warm.warm,
        launch_turned: partial(time_options, config=TINY, batches=()),
        warm.launch_configs: partial(sweep, operators=()),
    }
    for launch, section in sections.items():
        report = Kept(100)
        section(gpu, report)
        assert asked.pop() == (launch, CAPABILITY) and not asked
        assert report.values["problems"] == ["a problem"]
        told = [("compiling ahead", "a problem")] if launch is warm.launch_all else []
        assert report.of("failures") == told, "elsewhere who launches it fails"


def test_what_a_switch_may_change(random_model):
    """All bits, those of rows that are settled either way, or nothing."""
    program = backend_of(random_model())[0].program
    usual = np.zeros((3, program.width), np.int32)
    settled = np.array([True, True, False])

    def same(name: str, row: int, column: str) -> bool:
        answers = usual.copy()
        answers[row, program.columns[column].start] = 1
        return _same(name, program, answers, usual, settled)

    assert [same("fork", *at) for at in ((2, "word"), (1, "word"), (1, "probs"))] == [False] * 3
    assert [same("verify_beside", *at) for at in ((2, "probs"), (1, "word"), (1, "probs"), (0, "ids"))] == [
        True, True, False, False,
    ]  # fmt: skip
    assert same("split_k", 0, "ids")


if __name__ == "__main__":
    main()
