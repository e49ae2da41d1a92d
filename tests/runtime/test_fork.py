"""Workers that are forked after a network was loaded: one line, where they used to wait for ever."""

from __future__ import annotations

import os
import signal
import time

import numpy as np
import pytest

from clip4str.core.packaged import PACKAGED
from clip4str.runtime import Recognizer

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system forks no processes")
PIXELS = np.random.default_rng(0).standard_normal((2, 3, 32, 128)).astype(np.float32)
SECONDS = 60


def in_a_fork(work):
    """What a forked process writes; None if it does not end by itself."""
    readable, writable = os.pipe()
    process = os.fork()
    if not process:
        try:
            try:
                said = work()
            except Exception as error:
                said = f"{type(error).__name__}: {error}"
            os.write(writable, said.encode())
        finally:
            os._exit(0)
    os.close(writable)
    end = time.monotonic() + SECONDS
    while os.waitpid(process, os.WNOHANG)[0] == 0:
        if time.monotonic() > end:
            os.kill(process, signal.SIGKILL)
            os.waitpid(process, 0)
            return None
        time.sleep(0.01)
    with os.fdopen(readable) as file:
        return file.read()


def words(recognizer):
    return repr([word.text for word in recognizer.read_pixels(PIXELS)])


@pytest.mark.parametrize("backend", ["onnxruntime", "torch"])
def test_a_worker_forked_after_loading_is_told_so(backend):
    if backend == "torch":
        pytest.importorskip("torch")
    how = {"device": "cpu"} if backend == "torch" else {}
    with Recognizer.load(PACKAGED, backend, threads=2, **how) as recognizer:
        expected = words(recognizer)
        picture = np.zeros((32, 100, 3), np.uint8)
        for call in (
            lambda: recognizer.read_pixels(PIXELS),
            lambda: recognizer.reading(PIXELS),
            lambda: recognizer.read([picture]),
        ):
            said = in_a_fork(lambda call=call: repr(call()))
            assert said is not None, "it waits for ever"
            assert said.startswith("BackendError: this process was forked after Recognizer.load"), said
            assert "load after the fork" in said and "\n" not in said
        assert words(recognizer) == expected, "the one that loaded it reads on"


def test_a_worker_that_loads_after_the_fork_reads():
    """Whatever the parent has loaded."""
    with Recognizer.load(PACKAGED, "onnxruntime", threads=2) as recognizer:
        expected = words(recognizer)
        assert in_a_fork(lambda: words(Recognizer.load(PACKAGED, "onnxruntime", threads=2))) == expected


def test_onnxruntime_on_one_thread_survives_a_fork():
    with Recognizer.load(PACKAGED, "onnxruntime", threads=1, providers=["CPU"]) as recognizer:
        assert in_a_fork(lambda: words(recognizer)) == words(recognizer)
