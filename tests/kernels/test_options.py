"""The switches of kernels that have not been measured."""

from __future__ import annotations

import importlib.util

import pytest
import torch

from clip4str.core.errors import UsageError
from clip4str.kernels.options import VARIABLE, Options, options, parse, using


def test_the_environment_switches(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    assert options() == Options()
    monkeypatch.setenv(VARIABLE, " dependent_launch,-library_residual ")
    assert options() == Options(dependent_launch=True, library_residual=False)
    with using(Options()):
        assert options() == Options()
    assert options().dependent_launch
    assert parse("dependent_launch,-dependent_launch") == Options()


@pytest.mark.parametrize("text", ["fast", "--dependent_launch", "dependent_launch=1"])
def test_a_switch_that_is_none_is_said(text, monkeypatch):
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(UsageError, match=f"{VARIABLE}: .*{text}.* is none of dependent_launch"):
        options()


@pytest.mark.skipif(importlib.util.find_spec("triton") is None, reason="needs triton")
@pytest.mark.parametrize(
    "capability, driver, asked, early",
    [((9, 0), 12030, True, True), ((12, 0), 13000, True, True), ((8, 9), 13000, True, False),
     ((9, 0), 12020, True, False), ((9, 0), 13000, False, False)],
)  # fmt: skip
def test_who_may_start_early(capability, driver, asked, early, monkeypatch):
    from clip4str.kernels.shared import dependent

    monkeypatch.setattr(dependent, "interpreted", lambda: False)
    monkeypatch.setattr(dependent, "capability_of", lambda device: capability)
    monkeypatch.setattr(dependent, "_driver", lambda: driver)
    with using(Options(dependent_launch=asked)):
        assert dependent.dependent(torch.device("cuda")) == early
        assert not dependent.dependent(torch.device("cpu"))
