"""runtime/cuda over the real pycuda, built from its source package, with a libcuda whose GPU is memory (make
test-pycuda). Each case is a process of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).resolve().parent))
sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "runtime" / "trt"))
from pycuda_build import SITE, build, stand_in
from test_cuda_layer import ROOT, RUN

HIDE = "import sys; sys.modules['cuda.bindings'] = None\n"  # pycuda is taken where cuda.bindings is not there


@pytest.fixture(scope="session")
def libcuda(tmp_path_factory) -> Path:
    if why := build():
        pytest.skip(why)
    return stand_in(tmp_path_factory.mktemp("libcuda")).parent


@pytest.fixture
def run(libcuda, tmp_path):
    """run(body, FAKE_CUDA_...=...) -> what the body put into `says`, and the driver's log"""

    def call(body: str = "    pass", device: object = None, before: str = "", **environment: str):
        log = tmp_path / "log"
        log.unlink(missing_ok=True)
        environment |= {"PYTHONPATH": f"{ROOT}:{SITE}", "FAKE_CUDA_LOG": str(log), "LD_LIBRARY_PATH": str(libcuda)}
        code = HIDE + before + RUN.format(body=body, device=device)
        done = subprocess.run([sys.executable, "-c", code], env={"PATH": os.environ["PATH"], **environment},
                              capture_output=True, text=True, timeout=120)  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert "PyCUDA" not in done.stderr, "no warning of its clean-up"
        calls = [tuple(line.split()) for line in log.read_text().splitlines()] if log.exists() else []
        return json.loads(done.stdout.splitlines()[-1]), calls

    return call


WORK = """
    import pycuda
    says["pycuda"] = pycuda.VERSION_TEXT
    says["layer"] = type(l).__name__
    with l.current():
        stream = l.create_stream()
        address, other, host = l.allocate(4000), l.allocate(4000), l.allocate_host(4000)
        area = np.ctypeslib.as_array((ctypes.c_uint8 * 4000).from_address(host))
        says["device"] = [l.device.index, l.device.name, l.device.compute_capability, l.device.integrated]
        says["memory"] = l.memory()
        says["mapped"] = l.mapped(host) == host
        out = np.zeros(4000, np.uint8)
        area[:] = 7
        l.copy_in(address, host, 4000, stream)
        l.copy(other, address, 2000, stream)
        l.copy_out(out.ctypes.data, other, 2000, stream)
        says["early"] = int(out.sum())
        l.synchronise(stream)
        says["late"] = [int(out[:2000].sum()), int(out[2000:].sum())]
        l.wait_for(stream, 1)
        l.free(address), l.free(other), l.free_host(host)
        l.destroy_stream(stream)
"""
PAIRS = (
    ("cuCtxPushCurrent", "cuCtxPopCurrent"), ("cuDevicePrimaryCtxRetain", "cuDevicePrimaryCtxRelease"),
    ("cuMemAlloc", "cuMemFree"), ("cuMemHostAlloc", "cuMemFreeHost"), ("cuStreamCreate", "cuStreamDestroy"),
)  # fmt: skip


def balanced(calls: list[tuple[str, ...]]) -> None:
    names = [call[0] for call in calls]
    for make, end in PAIRS:
        assert names.count(make) == names.count(end) > 0, (make, names.count(make), names.count(end))


def test_every_call_does_what_it_says(run):
    says, calls = run(WORK)
    assert says.pop("pycuda") and says == {
        "layer": "PycudaLayer", "device": [0, "Memory 30", "8.7", True], "memory": [5, 7], "mapped": True, "early": 0,
        "late": [14000, 0],
    }  # fmt: skip
    assert ("cuStreamCreate", "1") in calls, "it must not wait for the default stream"
    assert ("cuMemHostAlloc", "4000", "2") in calls, "mapped"
    balanced(calls)


def test_closing_gives_back_what_is_held_and_leaves_no_context_behind(run):
    """A thread's own context, torch's for instance, is the current one again."""
    says, calls = run("""
    before = ctypes.CDLL("libcuda.so.1")
    here = ctypes.c_void_p()
    with l.current():
        l.create_stream(), l.allocate(100), l.allocate_host(100)
    l.close()
    says["status"] = before.cuCtxGetCurrent(ctypes.byref(here))
    says["current"] = here.value
    l.close()
""")
    assert says == {"status": 0, "current": None}
    balanced(calls)


def test_another_thread_may_work_and_close(run):
    says, calls = run("""
    import threading
    def work():
        with l.current():
            stream, _, _ = l.create_stream(), l.allocate(100), l.allocate_host(100)
            l.synchronise(stream)
            says["there"] = True
    def close():
        l.close()
        says["closed"] = True
    for target in (work, close):
        thread = threading.Thread(target=target)
        thread.start()
        thread.join()
""")
    assert says == {"there": True, "closed": True}
    balanced(calls)


@pytest.mark.parametrize(
    ("fails", "kind", "message"),
    [
        ("cuMemAlloc=2", "CudaOutOfMemory", r"cuMemAlloc.*out of memory"),
        ("cuStreamSynchronize=700", "CudaContextLost", "illegal memory access.*restart it"),
        ("cuStreamSynchronize=719", "CudaContextLost", "restart it"),
        ("cuMemcpyHtoDAsync=400", "CudaError", "cuMemcpyHtoDAsync failed"),
        ("cuDevicePrimaryCtxRetain=2", "CudaOutOfMemory", "cuDevicePrimaryCtxRetain"),
        ("cuInit=100", "BackendError", "no usable NVIDIA GPU here"),
    ],
)
def test_errors_are_one_line_of_their_kind(run, fails, kind, message):
    import re

    says, calls = run(WORK, FAKE_CUDA_FAIL=fails)
    found, text = says["error"]
    assert (found, "\n" in text) == (kind, False) and re.search(message, text), says
    names = [call[0] for call in calls]
    assert names.count("cuCtxPushCurrent") == names.count("cuCtxPopCurrent")


def test_gpus_that_are_not_there(run):
    says, _ = run(FAKE_CUDA_COUNT="0")
    assert says["error"][1] == "no usable NVIDIA GPU here (no GPU was found)"
    says, _ = run(device="cuda:2", FAKE_CUDA_COUNT="2")
    assert says["error"][1] == "device cuda:2: there are 2 GPUs, from 0 on"
