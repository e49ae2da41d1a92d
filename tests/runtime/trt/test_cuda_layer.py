"""runtime/cuda over the real cuda.bindings, 12.x and 13.x, with a libcuda whose GPU is memory, and over a stand-in for
pycuda. Each case is a process of its own: the bindings load the driver once."""

from __future__ import annotations

import ctypes
import json
import os
import re
import shutil
import subprocess
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from clip4str.core.errors import BackendError
from clip4str.runtime import cuda
from clip4str.runtime.cuda import CudaContextLost, CudaError, CudaOutOfMemory, device_index, over_bindings
from clip4str.runtime.cuda.over_pycuda import PycudaLayer

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
FOLDER = Path(sys.prefix) / "cuda-bindings"  # other versions than the installed one: VERSION/ by pip install --target
VERSIONS = ["installed", *(sorted(path.name for path in FOLDER.iterdir()) if FOLDER.is_dir() else ())]

RUN = """
import ctypes, json, sys
import numpy as np
from clip4str.runtime import cuda
from clip4str.core.errors import Clip4StrError
def body(l, says):
{body}
says = {{}}
try:
    l = cuda.open_cuda({device!r})
    try:
        body(l, says)
    finally:
        l.close()
except Clip4StrError as error:
    says["error"] = [type(error).__name__, str(error)]
print(json.dumps(says))
"""


@pytest.fixture(scope="session")
def libcuda(tmp_path_factory):
    if shutil.which("gcc") is None:
        pytest.skip("gcc builds the stand-in for libcuda")
    folder = tmp_path_factory.mktemp("libcuda")
    target = folder / "libcuda.so.1"
    subprocess.run(["gcc", "-shared", "-fPIC", "-O1", "-w", "-o", target, HERE / "c" / "memory_gpu.c"], check=True)
    return folder


def path_of(version):
    """What PYTHONPATH needs for these bindings."""
    if version == "installed":
        pytest.importorskip("cuda.bindings.driver", reason="cuda-bindings is not installed")
        return str(ROOT)
    return f"{ROOT}:{FOLDER / version}"


@pytest.fixture(params=VERSIONS)
def run(request, libcuda, tmp_path):
    """run(body, device, FAKE_CUDA_...=...) -> what the body put into `says`, and the driver's log"""
    path = path_of(request.param)

    def call(body="    pass", device=None, driver=True, **environment):
        log = tmp_path / "log"
        log.unlink(missing_ok=True)
        environment |= {"PYTHONPATH": path, "FAKE_CUDA_LOG": str(log)}
        environment |= {"LD_LIBRARY_PATH": str(libcuda) if driver else "", "PATH": os.environ["PATH"]}
        code = RUN.format(body=body, device=device)
        done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        calls = [tuple(line.split()) for line in log.read_text().splitlines()] if log.exists() else []
        return json.loads(done.stdout), calls

    return call


WORK = """
    with l.current():
        stream = l.create_stream()
        address, other, host = l.allocate(4000), l.allocate(4000), l.allocate_host(4000)
        area = np.ctypeslib.as_array((ctypes.c_uint8 * 4000).from_address(host))
        says["device"] = [l.device.index, l.device.name, l.device.compute_capability, l.device.integrated]
        says["memory"] = l.memory()
        says["of"] = [l.device_of(address), l.device_of(area.ctypes.data), l.device_of(12345)]
        says["mapped"] = l.mapped(host) == host
        out = np.zeros(4000, np.uint8)
        area[:] = 7
        l.copy_in(address, host, 4000, stream)
        l.copy(other, address, 2000, stream)
        l.copy_out(out.ctypes.data, other, 2000, stream)
        says["early"] = int(out.sum())
        l.synchronise(stream)
        says["late"] = [int(out[:2000].sum()), int(out[2000:].sum())]
        l.begin_capture(stream)
        l.copy_in(address, host, 4000, stream)
        l.copy_out(out.ctypes.data, address, 4000, stream)
        graph = l.end_capture(stream)
        l.synchronise(stream)
        says["captured"] = int(out.sum())
        for value in (3, 5):
            area[:] = value
            l.launch(graph, stream)
            l.synchronise(stream)
            says[f"replayed {value}"] = int(out.sum())
        l.wait_for(stream, 1)
        l.destroy_graph(graph)
        l.free(address), l.free(other), l.free_host(host)
        l.destroy_stream(stream)
"""


def test_every_call_does_what_it_says(run):
    says, calls = run(WORK)
    assert says == {
        "device": [0, "Memory 30", "8.7", True], "memory": [5, 7], "of": [0, None, None], "mapped": True, "early": 0,
        "late": [14000, 0], "captured": 14000, "replayed 3": 12000, "replayed 5": 20000,
    }  # fmt: skip
    assert ("cuStreamCreate", "1") in calls, "it must not wait for the default stream"
    assert ("cuMemHostAlloc", "4000", "2") in calls, "mapped"
    assert ("cuStreamBeginCapture", "1") in calls, "thread-local: other pipelines of the process go on"
    assert ("cuEventCreate", "2") in calls and ("cuEventRecord", "1") in calls
    names = [call[0] for call in calls]
    pairs = ("cuCtxPushCurrent", "cuCtxPopCurrent"), ("cuDevicePrimaryCtxRetain", "cuDevicePrimaryCtxRelease")
    pairs += ("cuGraphInstantiate", "cuGraphExecDestroy"), ("cuStreamEndCapture", "cuGraphDestroy")
    pairs += ("cuEventCreate", "cuEventDestroy"), ("cuMemAlloc", "cuMemFree"), ("cuStreamCreate", "cuStreamDestroy")
    for make, end in pairs:
        assert names.count(make) == names.count(end) > 0, (make, end)


@pytest.mark.parametrize(
    "fails, kind, message",
    [
        ("cuMemAlloc=2", "CudaOutOfMemory", r"cuMemAlloc failed: out of memory \(CUDA_ERROR_OUT_OF_MEMORY\)"),
        ("cuStreamSynchronize=700", "CudaContextLost", "illegal memory access .*context is lost, restart it"),
        ("cuMemcpyHtoDAsync=400", "CudaError", r"cuMemcpyHtoDAsync failed: some error \(CUDA_ERROR_INVALID_HANDLE\)"),
        ("cuStreamEndCapture=901", "CudaError", "cuStreamEndCapture failed"),
        ("cuGraphInstantiate=2", "CudaOutOfMemory", "cuGraphInstantiate failed"),
        ("cuDevicePrimaryCtxRetain=2", "CudaOutOfMemory", "cuDevicePrimaryCtxRetain"),
        ("cuInit=100", "BackendError", r"no usable NVIDIA GPU here \(no CUDA-capable device is detected\)"),
    ],
)
def test_errors_have_the_drivers_words(run, fails, kind, message):
    says, calls = run(WORK, FAKE_CUDA_FAIL=fails)
    found, text = says["error"]
    assert found == kind and re.search(message, text) and "\n" not in text
    names = [call[0] for call in calls]
    assert names.count("cuCtxPushCurrent") == names.count("cuCtxPopCurrent")
    if fails.startswith("cuGraphInstantiate"):
        assert names.count("cuGraphDestroy") == 1, "the graph that nothing was made of"


def test_without_a_driver_or_a_gpu(run):
    says, _ = run(driver=False)
    assert says["error"][0] == "BackendError" and re.search(r"no NVIDIA driver here \(.*cuda", says["error"][1])
    says, _ = run(FAKE_CUDA_COUNT="0")
    assert says["error"][1] == "no usable NVIDIA GPU here (no GPU was found)"
    says, _ = run(device="cuda:2", FAKE_CUDA_COUNT="2")
    assert says["error"][1] == "device cuda:2: there are 2 GPUs, from 0 on"
    says, _ = run("    says['name'] = l.device.name", device="cuda:1", FAKE_CUDA_COUNT="2")
    assert says == {"name": "Memory 31"}
    says, _ = run('    says["why"] = cuda.why_unusable()')
    assert says == {"why": None}


@pytest.mark.parametrize("version", VERSIONS)
def test_every_name_used_is_there(version):
    """Of functions and constants; functions that only an error path calls are not reached otherwise."""
    source = Path(over_bindings.__file__).read_text()
    names = set(re.findall(r'_call\(\s*"(cu\w+)"', source)) | set(re.findall(r"driver\.((?:cu|CU)\w+)", source))
    members = re.findall(r"\b(CU_[A-Z_]+)", source)
    assert len(names) > 30 and "cuMemAlloc" in names and "CU_STREAM_NON_BLOCKING" in members
    code = f"""
import sys
from cuda.bindings import driver
print([n for n in {sorted(names)} if not hasattr(driver, n)])
enums = [e for e in vars(driver).values() if hasattr(e, "__members__")]
there = {{m for e in enums for m in e.__members__}} | set(vars(driver))
print([m for m in {sorted(set(members))} if m not in there])
"""
    environment = {"PYTHONPATH": path_of(version)}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]", "[]"]


@pytest.mark.parametrize("device, index", [(None, 0), ("cuda", 0), ("cuda:3", 3), (2, 2), ("1", 1)])
def test_devices(device, index):
    assert device_index(device) == index


@pytest.mark.parametrize("device", ["cpu", "cuda:", "cuda:-1", "gpu", -1, "cuda:0\n", 1.5])
def test_no_devices(device):
    with pytest.raises(BackendError, match="TensorRT runs on cuda or cuda:NUMBER") as caught:
        device_index(device)
    assert "\n" not in str(caught.value)


def test_neither_library(monkeypatch):
    for name in ("cuda", "cuda.bindings", "pycuda", "pycuda.driver"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(BackendError, match=r"no CUDA for Python here .*pip install cuda-bindings"):
        cuda.open_cuda()
    assert "pip install cuda-bindings" in cuda.why_unusable()


def fake_pycuda():
    """pycuda.driver, as far as it is used: its GPU is memory too, and copies are done at once."""
    d = types.ModuleType("pycuda.driver")
    d.Error = type("Error", (Exception,), {})
    for name in ("MemoryError", "LaunchError", "LogicError"):
        setattr(d, name, type(name, (d.Error,), {}))
    d.log, d.live, d.fail = [], set(), None

    def step(name):
        d.log.append(name)
        if d.fail and d.fail[0] == name:
            raise d.fail[1]

    class Context:
        def push(self):
            step("push")

        def detach(self):
            step("detach")

        pop = staticmethod(lambda: step("pop"))
        synchronize = staticmethod(lambda: step("synchronise all"))

    class Device:
        count = staticmethod(lambda: 1)

        def __init__(self, index):
            self.index = index

        name = lambda self: "Orin"  # noqa: E731
        compute_capability = lambda self: (8, 7)  # noqa: E731
        get_attribute = lambda self, kind: 1  # noqa: E731

        def retain_primary_context(self):
            step("retain")
            return Context()

    class Allocation:
        def __init__(self, size):
            self.memory = np.zeros(size, np.uint8)
            d.live.add(self)

        def __int__(self):
            return self.memory.ctypes.data

        def free(self):
            step("free")
            d.live.remove(self)

        get_device_pointer = __int__

    class Array(np.ndarray):
        pass

    def mem_alloc(size):
        step("mem_alloc")
        return Allocation(size)

    class Pinned:
        """What pagelocked_empty gives: an array whose base owns the memory."""

        def __init__(self, size, dtype, mem_flags):
            assert mem_flags == 2 and dtype is np.uint8
            self.base = Allocation(size)
            self.ctypes = self.base.memory.ctypes

    class Stream:
        def __init__(self, flags):
            assert flags == 1
            self.handle = 77

        synchronize = lambda self: step("synchronise")  # noqa: E731

    def move(name):
        def run(*arguments):
            step(name)
            *ends, stream = arguments
            assert isinstance(stream, Stream)
            size = ends.pop() if name == "dtod" else ctypes.sizeof(ends[1] if name == "htod" else ends[0])
            to, source = (ctypes.addressof(e) if isinstance(e, ctypes.Array) else e for e in ends)
            ctypes.memmove(to, source, size)

        return run

    d.Context, d.Device, d.Stream, d.mem_alloc, d.pagelocked_empty = Context, Device, Stream, mem_alloc, Pinned
    d.device_attribute = types.SimpleNamespace(INTEGRATED=18)
    d.host_alloc_flags = types.SimpleNamespace(DEVICEMAP=2)
    d.mem_get_info, d.init = lambda: (5, 7), lambda: step("init")
    d.memcpy_htod_async, d.memcpy_dtoh_async, d.memcpy_dtod_async = move("htod"), move("dtoh"), move("dtod")
    return d


@pytest.fixture
def pycuda(monkeypatch):
    driver = fake_pycuda()
    package = types.ModuleType("pycuda")
    package.driver = driver
    for name in ("cuda", "cuda.bindings"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setitem(sys.modules, "pycuda", package)
    monkeypatch.setitem(sys.modules, "pycuda.driver", driver)
    return driver


def test_over_pycuda(pycuda):
    assert cuda.why_unusable() is None
    layer = cuda.open_cuda("cuda")
    assert isinstance(layer, PycudaLayer) and not layer.captures
    assert (layer.device.name, layer.device.capability, layer.device.integrated) == ("Orin", (8, 7), True)
    with layer.current():
        stream, a, b, host = layer.create_stream(), layer.allocate(100), layer.allocate(100), layer.allocate_host(100)
        area = np.ctypeslib.as_array((ctypes.c_uint8 * 100).from_address(host))
        area[:] = 9
        out = np.zeros(100, np.uint8)
        layer.copy_in(a, layer.mapped(host), 100, stream)
        layer.copy(b, a, 60, stream)
        layer.copy_out(out.ctypes.data, b, 100, stream)
        layer.synchronise(stream)
        assert out.sum() == 540 and layer.memory() == (5, 7) and layer.device_of(a) == 0
        layer.wait_for(stream, 1)
        with pytest.raises(BackendError, match="no CUDA graphs"):
            layer.begin_capture(stream)
        layer.free(a), layer.free(b), layer.free_host(host)
        layer.destroy_stream(stream)
    layer.close()
    layer.close()
    assert not pycuda.live and pycuda.log.count("push") == pycuda.log.count("pop") > 0
    assert pycuda.log.count("detach") == 1 and "synchronise all" in pycuda.log


def test_pycudas_errors(pycuda):
    layer = cuda.open_cuda()
    with layer.current():
        stream = layer.create_stream()
        cases = [
            ("mem_alloc", pycuda.MemoryError("cuMemAlloc failed: out of memory"), CudaOutOfMemory),
            ("synchronise", pycuda.LaunchError("cuStreamSynchronize failed: launch failed"), CudaContextLost),
            ("synchronise", pycuda.LogicError("an illegal memory access was encountered"), CudaContextLost),
            ("mem_alloc", pycuda.LogicError("invalid value\nand more"), CudaError),
        ]
        for name, error, kind in cases:
            pycuda.fail = name, error
            with pytest.raises(kind) as caught:
                layer.allocate(4) if name == "mem_alloc" else layer.synchronise(stream)
            assert type(caught.value) is kind and "\n" not in str(caught.value)
    pycuda.fail = None
    layer.close()
