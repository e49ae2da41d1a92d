"""Bundles with engines for the fake TensorRT, and backends over them on a fake GPU."""

from __future__ import annotations

import gc
import json
import sys
from functools import cache

from fake_gpu import FakeCuda, FakeGpu
from fake_trt_runtime import make_tensorrt, write_plan

from clip4str.core.bpe import BytePairTokenizer
from clip4str.core.caption_cache import CaptionCache
from clip4str.core.driver import PredictAndRefine
from clip4str.core.errors import Clip4StrError
from clip4str.core.reading import Decoding
from clip4str.core.text import Charset
from clip4str.runtime.backends import Options
from clip4str.runtime.backends.trt import open_backend, session
from clip4str.runtime.bundle import STAGES, Bundle, describe_file

PROFILE = {"min": 1, "opt": 4, "max": 8}


def add_engines(folder, profile=None, plans=None, **changes):
    """Engines and the manifest's word of them. plans: {stage: changes of its tensors}. changes: of manifest.engines."""
    profile = profile or PROFILE
    manifest = json.loads((folder / "manifest.json").read_text())
    for stage in STAGES:
        path = folder / f"{stage}.plan"
        write_plan(path, folder / manifest["stages"][stage], profile, **(plans or {}).get(stage, {}))
        manifest["files"][path.name] = describe_file(path)
    manifest["engines"] = {
        "target": "tensorrt", "version": "10.3.0.26", "gpu": "Orin", "compute_capabilities": ["8.7"],
        "hardware_compatibility": "none", "version_compatible": False, "profile": profile, "workspace": None,
        "precision": manifest["precision"], "model": "", "key": "", "build_seconds": {}, "parity": {},
        "files": {stage: f"{stage}.plan" for stage in STAGES}, "command": "", **changes,
    }  # fmt: skip
    (folder / "manifest.json").write_text(json.dumps(manifest))
    return folder


class Rig:
    """A GPU and a TensorRT on it; opens backends and at the end checks that nothing is left."""

    def __init__(self, monkeypatch, gpu=None, **how):
        self.gpu = gpu or FakeGpu()
        self.trt = make_tensorrt(self.gpu, **how)
        monkeypatch.setitem(sys.modules, self.trt.__name__, self.trt)
        monkeypatch.setattr(session, "open_cuda", lambda device: FakeCuda(self.gpu))

    def open(self, folder, decoding=None, cache=0, **options):
        """(backend, driver). folder: or a Bundle"""
        bundle = folder if isinstance(folder, Bundle) else Bundle.open(folder)
        driver = driver_of(bundle, decoding, cache)
        return open_backend(bundle, driver, Options(**options)), driver

    def check_empty(self):
        if self.gpu.blocks or list(self.trt.alive):  # held by an error that is in a cycle; all else goes at once
            gc.collect()
        self.gpu.check_empty()
        assert not list(self.trt.alive), "engines or contexts that nobody dropped"


tokenizer_of = cache(BytePairTokenizer)


def driver_of(bundle, decoding=None, cached=0):
    m = bundle.manifest
    tokenizer = tokenizer_of(m.config["vocabulary"], m.config["context"])
    charset = Charset(m.charset, m.charset_test)
    return PredictAndRefine(charset, tokenizer, m.config["steps"], decoding or Decoding(), CaptionCache(cached))


def life(r, bundle, pixels):
    """Open, read twice, close: what was read, or the error."""
    backend = None
    try:
        backend, driver = r.open(bundle, cache=2)
        backend.read(driver, pixels)
        return backend.read(driver, pixels).ids, None
    except Clip4StrError as error:
        assert "\n" not in str(error) and str(error)
        # What is left must read right when it is asked once more.
        return (None if backend is None else backend.read(driver, pixels).ids), str(error)
    finally:
        if backend is not None:
            backend.close()


def forgive(r, call):
    """A call that gives back and failed leaves one thing; everything else must be gone."""
    gpu = r.gpu
    left = [len(x) for x in (gpu.blocks, gpu.pinned, gpu.streams, gpu.graphs)]
    assert sum(left) <= 1 or call == "current", left
    for x in (gpu.blocks, gpu.pinned, gpu.streams, gpu.graphs):
        x.clear()
    r.check_empty()
