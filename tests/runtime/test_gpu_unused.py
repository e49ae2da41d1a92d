"""Bundles that no GPU's backend can run: said where a GPU is there or asked for, and nowhere else."""

from __future__ import annotations

import ctypes
import subprocess
import sys
import warnings

import pytest

from clip4str.core.errors import UsageError
from clip4str.core.packaged import PACKAGED
from clip4str.runtime import Recognizer, backends
from clip4str.runtime.cuda import presence


@pytest.fixture
def machine(monkeypatch, tmp_path):
    """machine(driver=..., node=..., visible=...) stands for one with that."""

    def make(driver=True, node=True, visible=None):
        def load(name, *rest):
            assert name == "libcuda.so.1"
            if not driver:
                raise OSError("libcuda.so.1: cannot open shared object file")

        (tmp_path / "nvidia0").touch()
        monkeypatch.setattr(ctypes, "CDLL", load)
        monkeypatch.setattr(presence, "NODES", (str(tmp_path / ("nvidia[0-9]*" if node else "nvhost-gpu")),))
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
        if visible is not None:
            monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)

    return make


def told(bundle, backend="auto", **options):
    with warnings.catch_warnings(record=True) as found:
        warnings.simplefilter("always")
        recognizer = Recognizer.load(bundle, backend, threads=1, **options)
    assert recognizer.backend.name == "onnxruntime"
    assert all(warning.filename == __file__ for warning in found), "who loads it is named"
    return [str(warning.message) for warning in found]


def test_a_gpu_that_the_bundle_is_not_for_is_told_of(machine, tiny_bundle):
    machine()
    (message,) = told(tiny_bundle)
    ways = f"clip4str build CHECKPOINT --torch, or clip4str build {tiny_bundle} --target tensorrt"
    assert message.startswith(f"{tiny_bundle} has neither engines nor weights for torch: read on the CPU, ")
    assert ways in message and "\n" not in message
    assert not told(tiny_bundle, "onnxruntime"), "it was chosen"
    assert not told(tiny_bundle, providers=["CPU"]), "so was it here"


@pytest.mark.parametrize(
    "without", [{"driver": False}, {"node": False}, {"visible": ""}, {"visible": "-1"}], ids=lambda given: str(given)
)
def test_nothing_is_said_where_there_is_no_gpu(machine, tiny_bundle, without):
    machine(**without)
    assert not told(tiny_bundle)


def test_the_packaged_network_has_weights_for_torch(machine, monkeypatch):
    machine()
    monkeypatch.setattr(backends, "_torch_has_gpu", lambda: False)
    assert not told(PACKAGED), "what is missing is not the bundle's to have"


def test_it_is_found_without_torch_and_without_starting_cuda(tiny_bundle, tmp_path):
    """By a driver that any call would end the process of."""
    (tmp_path / "nvidia0").touch()
    code = f"""
import ctypes, os, sys
class Driver:
    def __getattr__(self, name):
        os._exit(3)
load = ctypes.CDLL
ctypes.CDLL = lambda name, *rest, **more: Driver() if name == "libcuda.so.1" else load(name, *rest, **more)
from clip4str.runtime import Recognizer
from clip4str.runtime.cuda import presence
presence.NODES = ({str(tmp_path / "nvidia0")!r},)
Recognizer.load({str(tiny_bundle)!r}, threads=1)
assert not {{"torch", "cuda", "cuda.bindings"}} & set(sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0 and "neither engines nor weights for torch" in done.stderr, done.stderr


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"device": "cuda"}, "device: "),
        ({"graphs": False, "passes": (3, 2)}, "graphs, passes: "),
        ({"dtype": "bfloat16"}, "dtype: "),
    ],
)
def test_options_of_a_gpu_say_what_the_bundle_lacks(tiny_bundle, options, words):
    with pytest.raises(UsageError) as caught:
        Recognizer.load(tiny_bundle, **options)
    message = str(caught.value)
    assert message.startswith(f"{words}{tiny_bundle} has neither engines nor weights for torch, so no GPU reads it: ")
    assert f"clip4str build CHECKPOINT --torch, or clip4str build {tiny_bundle} --target tensorrt" in message
    assert ("openvino" in message) == ("dtype" in options) and "\n" not in message
