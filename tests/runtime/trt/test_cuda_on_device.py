"""The CUDA layer on a GPU: copies captured with a graph, replayed over changed memory, while another thread has torch
allocate. Where there is no GPU, over the tests' stand-in for libcuda, without torch."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest
from device import ON_GPU
from test_cuda_layer import ROOT, RUN, libcuda  # noqa: F401

pytestmark = pytest.mark.gpu
WORK = """
    size, rounds = 1 << 20, {rounds}
    import threading
    stop, failed = threading.Event(), []
    def allocate():
        import torch
        try:
            while not stop.is_set():
                torch.zeros(1 << 22, device="cuda").add_(1).sum().item()
                torch.cuda.empty_cache()
        except Exception as error:
            failed.append(str(error))
    if {torch}:
        import torch
        torch.zeros(1, device="cuda")  # the primary context is torch's, too
        other = threading.Thread(target=allocate)
        other.start()
    with l.current():
        stream = l.create_stream()
        address, host = l.allocate(size), l.allocate_host(size)
        area = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(host))
        for round in range(rounds):
            back = l.allocate_host(size)
            out = np.ctypeslib.as_array((ctypes.c_uint8 * size).from_address(back))
            out[:] = 0
            l.begin_capture(stream)
            l.copy_in(address, host, size, stream)
            l.copy_out(back, address, size, stream)
            graph = l.end_capture(stream)
            l.synchronise(stream)
            says.setdefault("ran while captured", 0)
            says["ran while captured"] += int(out.sum())
            for value in (3, 5):
                area[:] = value
                l.launch(graph, stream)
                l.synchronise(stream)
                says.setdefault("wrong", 0)
                says["wrong"] += int((out != value).sum())
            l.destroy_graph(graph)
            l.free_host(back)
        l.free(address), l.free_host(host)
        l.destroy_stream(stream)
    if {torch}:
        stop.set()
        other.join(60)
    says["failed"] = failed
"""


def test_captures_with_copies_inside_beside_allocations(libcuda):  # noqa: F811
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    if not ON_GPU:
        pytest.importorskip("cuda.bindings.driver", reason="cuda-bindings is not installed")
        environment["LD_LIBRARY_PATH"] = str(libcuda)
    code = RUN.format(body=WORK.format(rounds=50 if ON_GPU else 2, torch=ON_GPU), device=None)
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == {"ran while captured": 0, "wrong": 0, "failed": []}
