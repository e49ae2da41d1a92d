"""Decoder passes by the kernel library in the engines' place. The stand-in for the library computes the operator's own
reference (kernels/decode_pass) over the weights and the memory that it finds at the addresses it is given."""

from __future__ import annotations

import json
import sys
import warnings
from dataclasses import fields

import numpy as np
import pytest
import torch
from fake_decoders import add_kernels, install, packed_decoders
from fake_gpu import FakeGpu
from trt_rig import driver_of

from clip4str.core.errors import BackendError, BundleError, DeviceError, ShapeError
from clip4str.core.reading import Decoding, Pass
from clip4str.kernels import loader
from clip4str.kernels.decode_pass import DecoderWeights, decode_pass
from clip4str.kernels.shared.variants import NETWORKS, Network
from clip4str.runtime import Recognizer
from clip4str.runtime.backends.ort import OrtBackend
from clip4str.runtime.backends.trt.stage_by_stage import VARIABLE
from clip4str.runtime.bundle import Bundle, describe_file

SLOWER = "not using the compiled kernels, the engines decode stage by stage, slower"


@pytest.fixture(scope="module")
def arrays(golden_checkpoint):
    return packed_decoders(golden_checkpoint("tiny"))


@pytest.fixture(autouse=True)
def stage_by_stage(monkeypatch):
    """In one launch: test_trt_one_launch.py"""
    monkeypatch.setenv(VARIABLE, "0")


@pytest.fixture
def library(monkeypatch):
    """library(gpu, open_error=...) puts the stand-in in the loader's place."""
    return lambda gpu, **how: install(monkeypatch, gpu, **how)


class Expected:
    """The same operator, asked directly."""

    flexible_steps = False

    def __init__(self, folder, arrays):
        self.ort = OrtBackend(Bundle.open(folder), threads=1)
        self.image, self.text, self.stack = self.ort.image, self.ort.text, self.ort.stack
        names = [f.name for f in fields(DecoderWeights)]
        self.weights = {
            branch: DecoderWeights(**{name: torch.from_numpy(arrays[f"{branch}.{name}"]) for name in names})
            for branch in ("visual", "cross")
        }

    def visual(self, tokens, rule, *kv, branch="visual"):
        ids = torch.from_numpy(np.concatenate((tokens[:, 1:], tokens[:, :1]), axis=1))
        keep = torch.from_numpy(rule.keep.astype(np.int32)) if rule.mode == "cloze" else None
        kvs = [torch.from_numpy(x) for x in kv]
        out = decode_pass(self.weights[branch], ids, *kvs, mode=rule.mode, keep=keep)
        return Pass(out.ids.numpy(), out.probs.numpy())

    def cross(self, tokens, rule, *kv):
        return self.visual(tokens, rule, *kv, branch="cross")


@pytest.mark.parametrize("integrated", [False, True], ids=["discrete", "integrated"])
@pytest.mark.parametrize(
    "how", [Decoding(), Decoding("nar", 2), Decoding(refine=0), Decoding(branch="visual")], ids=str
)
def test_words_are_the_operators(rig, engine_bundle, half_tiny_bundle, arrays, images, library, how, integrated):
    r = rig(FakeGpu(integrated=integrated))
    made, folder = library(r.gpu), add_kernels(engine_bundle(half_tiny_bundle), arrays)
    backend, driver = r.open(folder, how, cache=7)
    assert backend.compiled_kernels and made.opened[0].network == "tiny"
    reference, matched = Expected(folder, arrays), 0
    for start, n in ((0, 1), (1, 3), (4, 8), (12, 8), (20, 3), (30, 9)):
        want = driver_of(Bundle.open(folder), how)(reference, images[start : start + n])
        got = backend.read(driver, images[start : start + n])
        same = (got.ids == want.ids).all(axis=1)
        matched += same.sum()
        np.testing.assert_allclose(got.probs[same], want.probs[same], rtol=2e-2, atol=1e-3)
    assert matched >= 30, "of 32; batches are padded here, so a few matrix products round differently"
    assert {stage for stage, _ in r.trt.enqueued} == {"image", "text"} - ({"text"} if how.branch == "visual" else set())
    assert r.gpu.calls["launch"] > r.gpu.calls["decode_pass"], "replayed in graphs"
    backend.close()
    assert made.opened[0].closed == 1
    r.check_empty()


def test_keys_and_values_as_arrays_are_understood(rig, engine_bundle, half_tiny_bundle, arrays, images, library):
    """A build's parity check replays calls with keys and values as arrays."""
    r = rig()
    library(r.gpu)
    folder = add_kernels(engine_bundle(half_tiny_bundle), arrays)
    backend, driver = r.open(folder)
    backend.with_logits = True
    calls = []

    class Watching(OrtBackend):
        flexible_steps = False

        def _pass(self, stage, tokens, rule, **memory):
            out = super()._pass(stage, tokens, rule, **memory)
            calls.append((stage, tokens, rule, memory, out))
            return out

    held = backend.image(images[:4])
    driver(Watching(Bundle.open(half_tiny_bundle), threads=1), images[:4])
    modes = set()
    for stage, tokens, rule, memory, want in calls:
        got = getattr(backend, stage)(tokens, rule, *memory.values())
        assert np.abs(got.logits - want.logits).max() < 0.05 * np.abs(want.logits).max()
        modes.add((stage, rule.mode))
    assert modes == {
        ("visual", "start"),
        ("visual", "causal"),
        ("visual", "cloze"),
        ("cross", "causal"),
        ("cross", "cloze"),
    }
    assert np.array_equal(held[0].numpy(), backend.image(images[:4])[0].numpy()), "not written over meanwhile"
    backend.close()
    r.check_empty()


@pytest.mark.parametrize("error", [DeviceError("not built for sm_87"), ShapeError("no kernel"), BackendError("abi")])
def test_a_library_that_does_not_fit_is_not_used(rig, engine_bundle, half_tiny_bundle, arrays, images, library, error):
    r, folder = rig(), add_kernels(engine_bundle(half_tiny_bundle), arrays)
    for how in ({"open_error": error}, {"pass_error": error}):
        made = library(r.gpu, **how)
        with pytest.warns(RuntimeWarning, match=f"{SLOWER}: {error}"):
            backend, driver = r.open(folder)
        assert not backend.compiled_kernels and all(x.closed == 1 for x in made.opened)
        backend.read(driver, images[:2])
        assert {stage for stage, _ in r.trt.enqueued} == {"image", "text", "visual", "cross"}
        backend.close()
        r.check_empty()


def test_where_there_is_no_library_or_nothing_for_it(
    rig, engine_bundle, half_tiny_bundle, tiny_bundle, arrays, monkeypatch, recwarn
):
    r, folder = rig(), add_kernels(engine_bundle(half_tiny_bundle), arrays)
    monkeypatch.delenv(loader.VARIABLE, raising=False)
    monkeypatch.setattr(loader, "NAME", "no such library.so")
    backend, _ = r.open(folder)
    assert not backend.compiled_kernels and not recwarn.list, "stage by stage is what was asked for"
    backend.close()
    with monkeypatch.context() as patch:
        patch.delenv(VARIABLE)
        with pytest.warns(
            RuntimeWarning, match=rf"^{SLOWER}: no kernel library at .*python -m clip4str.kernels"
        ) as told:
            r.open(folder)[0].close()
        assert len(told) == 1 and "CLIP4STR_KERNELS=PATH" in str(told[0].message)
    monkeypatch.setenv(loader.VARIABLE, "/nowhere/lib.so")
    with pytest.warns(RuntimeWarning, match="no kernel library at /nowhere/lib.so"):
        r.open(folder)[0].close()
    monkeypatch.setitem(sys.modules, "clip4str.kernels.loader", None)  # not even looked for:
    single = add_kernels(engine_bundle(tiny_bundle, "single"), arrays)
    backend, _ = r.open(single)
    assert not backend.compiled_kernels, "float32 keys and values"
    backend.close()
    r.check_empty()


def test_a_bundle_without_decoders_for_the_kernels_is_told_of(
    rig, engine_bundle, half_tiny_bundle, tiny_bundle, arrays, monkeypatch, library
):
    """Where kernels are compiled for a network of its size: for the golden one there are none."""
    r, half, single = rig(), engine_bundle(half_tiny_bundle, "half"), engine_bundle(tiny_bundle, "single")
    monkeypatch.delenv(VARIABLE)

    def told():
        with warnings.catch_warnings(record=True) as found:
            warnings.simplefilter("always")
            for folder in (half, single):
                Recognizer.load(folder, "tensorrt").close()
        r.check_empty()
        return [str(warning.message) for warning in found]

    monkeypatch.setenv(loader.VARIABLE, "/nowhere/lib.so")
    assert not told()
    sizes = {"d": 64, "memory": 17, "image_width": 64, "text_width": 64, "image_size": (64, 64)}
    monkeypatch.setitem(NETWORKS, "tiny", Network("tiny", **sizes))
    lacks = (
        f"{half} has no decoders for the compiled kernels (decoders.npz): its engines decode stage by stage, slower; "
    )
    again = "its checkpoint, built again with --fp16 --target tensorrt, has them"
    (message,) = told()
    assert message.startswith(f"{lacks}{again}; besides, no kernel library at /nowhere/lib.so: ")
    monkeypatch.setenv(VARIABLE, "0")
    assert not told(), "stage by stage is what was asked for"
    monkeypatch.delenv(VARIABLE)
    library(r.gpu)
    monkeypatch.setitem(NETWORKS, "tiny", Network("tiny", **sizes))
    assert told() == [lacks + again]
    add_kernels(half, arrays)
    assert not told()


def test_damaged_decoders(rig, engine_bundle, half_tiny_bundle, arrays, library):
    r, folder = rig(), engine_bundle(half_tiny_bundle)
    library(r.gpu)

    def refused(message, change=arrays, **how):
        add_kernels(folder, change, **how)
        with pytest.raises(BundleError, match=f"decoders.npz: {message}") as caught:
            r.open(folder)
        assert "\n" not in str(caught.value)
        del caught
        r.check_empty()

    refused("visual.base is missing", {k: v for k, v in arrays.items() if k != "visual.base"})
    refused(r"cross.values is float32 \(26", {**arrays, "cross.values": arrays["cross.values"].astype(np.float32)})
    refused(r"visual.up_weight is float16 \(3, 64\)", {**arrays, "visual.up_weight": arrays["visual.up_weight"][:3]})
    refused("damaged .*allow_pickle|damaged .*Object", {**arrays, "network": np.array([{}], object)})
    refused(
        "damaged .it unpacks to more than it is", {**arrays, "visual.base": np.zeros((2000, 2000))}, compressed=True
    )
    add_kernels(folder, arrays)
    data = (folder / "decoders.npz").read_bytes()
    for broken in (data[:1000], b"", data[:-3000], data.replace(b"NUMPY", b"NUMPX")):
        (folder / "decoders.npz").write_bytes(broken)
        manifest = json.loads((folder / "manifest.json").read_text())
        manifest["files"]["decoders.npz"] = describe_file(folder / "decoders.npz")
        (folder / "manifest.json").write_text(json.dumps(manifest))
        with pytest.raises(BundleError, match=r"decoders\.npz: damaged"):
            r.open(folder)
    r.check_empty()


def test_calls_that_fail_among_the_kernels(rig, engine_bundle, half_tiny_bundle, arrays, images, library):
    r, folder = rig(), add_kernels(engine_bundle(half_tiny_bundle), arrays)
    library(r.gpu)
    backend, driver = r.open(folder)
    want = backend.read(driver, images[:3]).ids
    for call in ("launch", "copy", "synchronise"):
        for number in (1, 2, 5):
            r.gpu.fail(call, number, "CUDA_ERROR_INVALID_VALUE")
            with pytest.raises(BackendError):
                for n in (3, 5, 2, 1, 8):
                    backend.read(driver, images[:n])
            r.gpu.faults.clear()
            assert np.array_equal(backend.read(driver, images[:3]).ids, want), (call, number)
    backend.close()
    r.check_empty()


@pytest.mark.parametrize("times", [1, 2])
def test_passes_that_fail_or_cannot_be_captured(rig, engine_bundle, half_tiny_bundle, arrays, images, library, times):
    """What fails once while it is recorded is recorded again."""
    r, folder = rig(), add_kernels(engine_bundle(half_tiny_bundle), arrays)
    library(r.gpu)
    backend, driver = r.open(folder)
    want = backend.read(driver, images[:3]).ids
    backend.close()
    told = []
    for number in range(1, 11):
        backend, driver = r.open(folder)
        for failing in range(number, number + times):
            r.gpu.fail("decode_pass", failing, "CUDA_ERROR_INVALID_VALUE")
        with warnings.catch_warnings(record=True) as warned:
            warnings.simplefilter("always")
            try:
                backend.read(driver, images[:3])
            except BackendError:
                warned.append(None)
        r.gpu.faults.clear()
        told.append(len(warned))
        assert np.array_equal(backend.read(driver, images[:3]).ids, want), number
        backend.close()
        r.check_empty()
    assert set(told) == ({0, 1} if times == 1 else {1}), "an error, or else a word about a graph that could not be made"
