"""Kernels compiled ahead: in processes without a GPU, for any, left where Triton looks for them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pytest
import torch

pytest.importorskip("triton")

from clip4str.kernels.linear import linear
from clip4str.kernels.options import NAMES, Options, options, using
from clip4str.kernels.shared.ahead import compile_ahead, meta
from clip4str.kernels.shared.launch import use_kernel

META = torch.device("meta")


def products(rows: list[int], dtype: torch.dtype) -> None:
    """What the processes call."""
    weight = torch.empty(64, 64, dtype=dtype, device=META)
    for count in rows:
        x = torch.empty(count, 64, dtype=dtype, device=META)
        assert linear(x, weight, residual=x, out=x.new_empty(count, 64)).shape == (count, 64)


def described(rows: list[int]) -> None:
    weight = torch.empty(64, 64, dtype=torch.float16, device=META)
    for count in rows:
        linear(torch.empty(count, 64, dtype=torch.float16, device=META), weight, activation="quick_gelu")


def switches() -> None:
    raise ValueError(", ".join(name for name in NAMES if getattr(options(), name)))


def broken() -> None:
    raise ValueError("a kernel\nthat cannot be")


def endless() -> None:
    import time

    time.sleep(600)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path / "cache"))
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join((str(Path(__file__).parent), os.environ.get("PYTHONPATH", ""))))
    return tmp_path / "cache"


@pytest.fixture
def assembled(tmp_path, monkeypatch) -> Path:
    """A file with a line for every run of the assembler."""
    import triton

    real, lines = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas", tmp_path / "assembled"
    (tmp_path / "ptxas").write_text(f'#!/bin/sh\n[ "$1" = --version ] || echo run >> {lines}\nexec {real} "$@"\n')
    (tmp_path / "ptxas").chmod(0o755)
    for name in ("TRITON_PTXAS_PATH", "TRITON_PTXAS_BLACKWELL_PATH"):
        monkeypatch.setenv(name, str(tmp_path / "ptxas"))
    return lines


def test_processes_share_the_kernels_and_leave_them_in_tritons_cache(cache, assembled):
    arguments = ([1, 16, 3008], torch.float16)
    assert compile_ahead(products, arguments, (9, 0), 2) == []
    found = {path: path.stat().st_mtime_ns for path in cache.rglob("*.cubin")}
    assert {path.name for path in found} == {"linear_kernel.cubin"}
    assert len(found) == 2, "1 and 16 rows are computed by one kernel"
    assert assembled.read_text() == "run\n" * 2, "each is compiled by one of the two"
    assert compile_ahead(products, arguments, (9, 0), 1) == []
    assert {path: path.stat().st_mtime_ns for path in cache.rglob("*.cubin")} == found, "another process finds them"
    assert compile_ahead(products, ([1], torch.float16), (8, 7), 1) == []
    assert len([*cache.rglob("*.cubin")]) == 3, "for another GPU another one"


def test_what_takes_descriptors_is_compiled_too(cache):
    """One kernel for any number of rows; below 9.0 the one without."""
    with using(Options(descriptors=True, dependent_launch=True)):
        for capability in ((9, 0), (8, 9)):
            assert compile_ahead(described, ([3008, 3001, 2049],), capability, 1) == []
    assert sorted(path.name for path in cache.rglob("*.cubin")) == ["descriptor_kernel.cubin", "linear_kernel.cubin"]


def test_a_failure_is_told_in_a_line(cache):
    assert compile_ahead(broken, (), (9, 0), 2) == ["ValueError: a kernel"]


def test_switches_of_this_process_hold_in_the_others(cache):
    with using(Options(dependent_launch=True, library_residual=False)):
        assert compile_ahead(switches, (), (9, 0), 1) == ["ValueError: dependent_launch"]


def test_processes_that_do_not_end_are_ended(cache):
    assert compile_ahead(endless, (), (9, 0), 1, seconds=1) == ["not done after 1 s"]


def test_shapes_alone_go_to_the_processes():
    class Pair(NamedTuple):
        first: torch.Tensor
        number: int

    @dataclass(frozen=True)
    class Held:
        pair: Pair
        several: list[torch.Tensor]
        device: torch.device
        name: str = "held"

    given = Held(Pair(torch.ones(3, 4).t(), 3), [torch.ones(2, dtype=torch.int32)], torch.device("cpu"))
    there = meta(given)
    assert there.pair.first.device == there.several[0].device == there.device == META
    assert there.pair.first.stride() == (1, 4) and there.several[0].dtype == torch.int32
    assert (there.pair.number, there.name) == (3, "held")


def test_here_nothing_runs_on_the_meta_device():
    assert not use_kernel(META, "auto"), "only in processes that compile"
