"""Kernels compiled in processes before they are launched: once for all that decides what is compiled."""

from __future__ import annotations

import warnings

import pytest
from torch_networks import backend_of

pytest.importorskip("triton")

from clip4str import kernels
from clip4str.kernels.options import Options, using
from clip4str.runtime.backends.pytorch import prepared
from clip4str.runtime.backends.pytorch.prepared import compile_in_processes, launch_buckets

HOPPER = (9, 0)


class Compiler:
    """In the place of compile_ahead: notes what it is asked for, and says what `problems` say."""

    def __init__(self) -> None:
        self.asked: list[tuple] = []
        self.problems: list[str] = []

    def __call__(self, launch, arguments, capability, processes) -> list[str]:
        program, buckets = arguments
        assert launch is launch_buckets and program.weights.device.type == "meta" and processes == 2
        self.asked.append((buckets, capability))
        return self.problems


@pytest.fixture
def compiler(monkeypatch, tmp_path) -> Compiler:
    compiler = Compiler()
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setattr(prepared, "compile_ahead", compiler)
    monkeypatch.setattr(prepared, "available_threads", lambda: 2)
    return compiler


@pytest.fixture
def program(random_model):
    return backend_of(random_model())[0].program


def test_once_for_each_program_buckets_gpu_and_switches(compiler, program, random_model, tmp_path):
    others = backend_of(random_model(d=64))[0].program
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(2):
            compile_in_processes(program, [8, 1], HOPPER)
            assert compiler.asked == [([8, 1], HOPPER)]
        for given in ((program, [8], HOPPER), (program, [8, 1], (8, 9)), (others, [8, 1], HOPPER)):
            before = len(compiler.asked)
            compile_in_processes(*given)
            compile_in_processes(*given)
            assert len(compiler.asked) == before + 1
        with using(Options(dependent_launch=True)):
            compile_in_processes(program, [8, 1], HOPPER)
            compile_in_processes(program, [8, 1], HOPPER)
        assert len(compiler.asked) == before + 2
    assert len([*(tmp_path / "cache").iterdir()]) == len(compiler.asked), "a stamp each"


@pytest.mark.parametrize("name", ["limits.py", "linear/config.py", "linear/deeper/tiles.py"])
def test_again_where_the_sources_changed(name, compiler, program, monkeypatch, tmp_path):
    monkeypatch.setattr(kernels, "__file__", str(tmp_path / "kernels" / "__init__.py"))
    changed = tmp_path / "kernels" / name
    changed.parent.mkdir(parents=True)
    for source in ("a = 1", "a = 2"):
        changed.write_text(source)
        compile_in_processes(program, [1], HOPPER)
    assert len(compiler.asked) == 2


def test_a_problem_warns_and_is_tried_again(compiler, program, tmp_path):
    compiler.problems = ["ValueError: a kernel"]
    for _ in range(2):
        with pytest.warns(RuntimeWarning, match="compiled one by one: ValueError: a kernel"):
            compile_in_processes(program, [1], HOPPER)
    assert len(compiler.asked) == 2 and not (tmp_path / "cache").exists()


def test_one_core_compiles_where_it_launches(compiler, program, monkeypatch):
    monkeypatch.setattr(prepared, "available_threads", lambda: 1)
    compile_in_processes(program, [1], HOPPER)
    assert not compiler.asked
