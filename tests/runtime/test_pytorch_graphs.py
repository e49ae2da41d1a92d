"""Buckets, static buffers, splitting and running out of memory, with graphs that a CPU replays by calling."""

import gc
import itertools
import subprocess
import threading
import time
import warnings
import weakref
from contextlib import contextmanager, suppress

import numpy as np
import pytest
import torch
from test_pytorch_program import same
from torch_networks import Replayed, backend_of, images

from clip4str.core.errors import BackendError, ShapeError
from clip4str.core.reading import Decoding
from clip4str.runtime.backends.capturing import capturing
from clip4str.runtime.backends.pytorch import program, runner, stages
from clip4str.runtime.backends.pytorch.graphs import BUCKETS, CudaGraphs, bucket_for, is_out_of_memory, release_memory
from clip4str.runtime.backends.pytorch.prepared import Prepared, launch_once


def test_the_bucket_of_a_batch():
    assert [bucket_for(n) for n in (1, 2, 3, 8, 9, 64, 65, 256, 257, 9999)] == [1, 2, 4, 8, 16, 64, 128, 256, 256, 256]
    assert list(BUCKETS) == sorted(BUCKETS)


@pytest.mark.parametrize("decoding", [Decoding(), Decoding("nar"), Decoding(refine=0), Decoding(branch="visual")])
def test_replays_read_what_eager_operators_read(decoding, random_model):
    model, layer = random_model(seed=4, steps=9, eos_bias=2.5), Replayed()
    eager, driver = backend_of(model, decoding, passes=(9, 9))  # all rows settle: what is left are captions
    graphed, _ = backend_of(model, decoding, passes=(9, 9), layer=layer)
    for n in (4, 1, 8, 3, 4):
        pixels = images(n, model, seed=n)
        same(graphed.read(driver, pixels), eager.read(driver, pixels))
    assert graphed._runner.graphs.captured == [1, 4, 8], "captured when first wanted, once"
    reread = graphed._runner.rereading.captured
    assert bool(reread) == graphed.program.rereads and set(reread) <= {1, 2, 4, 8}
    assert len(layer.replayed) >= 5 and len(layer.captured) == 3 + len(reread)


def test_words_that_need_more_passes_are_resumed_in_smaller_graphs(random_model):
    model, layer = random_model(seed=3, eos_bias=3.5), Replayed()
    backend, driver = backend_of(model, passes=(9, 6), layer=layer)
    pixels = images(13, model, seed=1)
    same(backend.read(driver, pixels), model.read(pixels))
    resumed = backend._runner.resuming.captured
    assert backend._runner.graphs.captured == [16] and resumed and min(resumed) < 16


def test_what_was_in_the_buffers_before_does_not_matter(random_model):
    model = random_model(seed=6)
    backend, driver = backend_of(model, layer=Replayed())
    pixels = images(3, model)
    want = backend.read(driver, pixels)
    static = backend._runner._static
    with torch.inference_mode():
        for buffer in (static.patches, static.kv):
            buffer.fill_(torch.nan)
        for buffer in (static.results, static.chosen, static.resumed, static.reread):
            buffer.zero_()
    same(backend.read(driver, pixels), want)
    assert not static.patches[3:4].any(), "the bucket's other rows are padding"


def test_a_batch_above_the_largest_bucket_is_split(random_model):
    model, layer = random_model(seed=7), Replayed()
    backend, driver = backend_of(model, batch_size=1000, layer=layer)
    assert backend.batch_size == 256
    small, _ = backend_of(model, batch_size=8, layer=layer)
    pixels = images(21, model, seed=3)
    same(small.read(driver, pixels), backend.read(driver, pixels))
    assert small._runner.graphs.captured == [8] and small.largest == 8


def test_out_of_memory_while_capturing_a_batch_falls_back_to_smaller_ones(random_model):
    model, layer = random_model(seed=8), Replayed(memory_for=4)
    want, _ = backend_of(model)
    pixels = images(19, model)
    backend, driver = backend_of(model, batch_size=32, layer=layer)
    with pytest.warns(RuntimeWarning, match=r"out of memory on cpu with \d+ images: reading \d+ at a time") as told:
        got = backend.read(driver, pixels)
    assert "with 19 images: reading 16 at" in str(told[0].message) and len(told) == 3
    same(got, want.read(driver, pixels))
    assert backend.largest == 4 and backend._runner.graphs.captured == [4], "nothing is kept of what failed"
    same(backend.read(driver, pixels[:2]), want.read(driver, pixels[:2]))


def test_out_of_memory_for_a_single_image_is_an_error_and_not_the_end(random_model):
    model, layer = random_model(seed=8), Replayed(memory_for=0)
    backend, driver = backend_of(model, batch_size=2, layer=layer)
    pixels = images(2, model)
    for _ in range(2):
        with (
            pytest.warns(RuntimeWarning) if backend.largest > 1 else _nothing(),
            pytest.raises(BackendError, match="out of memory on cpu with a single image") as caught,
        ):
            backend.read(driver, pixels)
        assert "\n" not in str(caught.value)
    layer.memory_for = 256
    same(backend.read(driver, pixels), backend_of(model)[0].read(driver, pixels))


def test_a_single_image_that_only_the_buffers_of_larger_batches_leave_no_room_for(random_model, monkeypatch):
    model = random_model(seed=8)
    backend, driver = backend_of(model, batch_size=64, layer=Replayed())
    static = runner.Static

    def scarce(program, rows):
        if rows > 1:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return static(program, rows)

    monkeypatch.setattr(runner, "Static", scarce)
    pixels = images(2, model)
    with pytest.warns(RuntimeWarning, match="reading 1 at a time"):
        got = backend.read(driver, pixels[:1])
    same(got, backend_of(model)[0].read(driver, pixels[:1]))
    assert len(backend.read(driver, pixels).ids) == 2


def test_memory_that_runs_out_elsewhere_and_other_failures(random_model):
    model = random_model(seed=8)
    backend, driver = backend_of(model, batch_size=8)
    pixels, run = images(8, model), backend._runner.run
    want = backend.read(driver, pixels)

    def fail(message):
        def failing(pixels):
            raise RuntimeError(message)

        backend._runner.run = failing

    fail("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`")
    with pytest.warns(RuntimeWarning):
        same(backend.read(driver, pixels), want)
    assert backend.largest == 4
    fail("CUDA error: an illegal memory access\nmore lines")
    with pytest.raises(BackendError, match="reading failed in torch \\(CUDA error: an illegal memory access\\)"):
        backend.read(driver, pixels)
    backend._runner.run = run
    same(backend.read(driver, pixels), want)


def test_errors_of_compilers_and_of_the_drivers_way_are_typed_too(random_model, monkeypatch):
    model = random_model(seed=8)
    pixels = images(3, model)
    for decoding, name in ((Decoding(), "decode_pass"), (Decoding(refine=2), "_decode")):
        backend, driver = backend_of(model, decoding, layer=Replayed())
        assert (backend.program is None) == (decoding.refine == 2)
        module = program if backend.program else stages
        want = backend.read(driver, pixels)
        for error, message in [
            (subprocess.CalledProcessError(1, ["gcc", "launcher.c"]), "reading failed in torch .*launcher.c"),
            (PermissionError(13, "Permission denied", "cache"), "Permission denied"),
            (KeyError(), "KeyError"),
            (torch.cuda.OutOfMemoryError("CUDA out of memory"), "out of memory on cpu with"),
        ]:

            def fail(*args, _error=error, **kwargs):
                raise _error

            with monkeypatch.context() as patch, warnings.catch_warnings():
                warnings.simplefilter("ignore", RuntimeWarning)
                patch.setattr(module, name, fail)
                with pytest.raises(BackendError, match=message) as caught:
                    backend.read(driver, pixels)
            assert "\n" not in str(caught.value)
            same(backend.read(driver, pixels), want)


def test_the_callers_autocast_and_defaults_change_nothing(random_model):
    model = random_model(seed=8)
    for decoding in (Decoding(), Decoding(refine=2)):
        backend, driver = backend_of(model, decoding, layer=Replayed())
        pixels = images(3, model)
        want = backend.read(driver, pixels)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            same(backend.read(driver, pixels), want)
        fresh, _ = backend_of(model, decoding, layer=Replayed())
        for change, back in (
            (lambda: torch.set_default_dtype(torch.float64), lambda: torch.set_default_dtype(torch.float32)),
            (lambda: torch.set_default_device("meta"), lambda: torch.set_default_device(None)),
        ):
            change()
            try:
                same(fresh.read(driver, pixels), want)
            finally:
                back()


def test_no_reading_inside_a_capture_of_the_callers(random_model, monkeypatch):
    FakeCuda(monkeypatch)
    model = random_model(seed=8)
    backend, driver = backend_of(model)
    backend.device = torch.device("cuda", 0)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    with pytest.raises(BackendError, match="cannot be captured in another CUDA graph"):
        backend.read(driver, images(1, model))


def test_which_errors_mean_a_lack_of_memory():
    def chained():
        try:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate")
        except RuntimeError:
            raise RuntimeError("CUDA error: operation failed due to a previous error during capture")  # noqa: B904

    with pytest.raises(RuntimeError) as caught:
        chained()
    assert is_out_of_memory(caught.value)
    assert not is_out_of_memory(RuntimeError("device-side assert")) and not is_out_of_memory(None)


def test_one_backend_in_many_threads(random_model):
    model = random_model(seed=9, eos_bias=4.5)
    backend, driver = backend_of(model, batch_size=8, passes=(9, 6), layer=Replayed())
    pixels = images(12, model)
    want, found = backend.read(driver, pixels), {}

    def work(i):
        for _ in range(3):
            found[i] = backend.read(driver, torch.roll(pixels, i, dims=0)[: 12 - i])

    threads = [threading.Thread(target=work, args=(i,)) for i in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for i in range(6):
        np.testing.assert_array_equal(found[i].ids, np.roll(want.ids, i, axis=0)[: 12 - i])


class FakeCuda:
    """Enough of torch.cuda to see in which order a capture asks for what."""

    def __init__(self, monkeypatch, fail=None):
        self.calls, self.fail, self.pools = [], fail, []
        cuda, handles = torch.cuda, itertools.count(7)
        outer = self

        class Stream:
            def wait_stream(self, other):
                outer.calls.append("wait")

            def synchronize(self):
                outer.calls.append("synchronize")

        class Graph:
            def replay(self):
                outer.calls.append("replay")

        class Recording:
            def __init__(self, graph, pool, stream, capture_error_mode):
                assert capture_error_mode == "thread_local"
                outer.pools.append(pool)

            def __enter__(self):
                outer.calls.append("begin")

            def __exit__(self, *error):
                outer.calls.append("end")

        def nothing(*a):
            return _nothing()

        for name, value in {
            "device": nothing, "stream": nothing, "Stream": Stream, "graph_pool_handle": lambda: (0, next(handles)),
            "current_stream": Stream, "CUDAGraph": Graph, "graph": Recording,
            "empty_cache": lambda: self.calls.append("empty cache"),
        }.items():  # fmt: skip
            monkeypatch.setattr(cuda, name, value)

    def run(self):
        self.calls.append("run")
        if self.fail and "begin" in self.calls:
            raise self.fail


class _nothing:
    def __enter__(self):
        return None

    def __exit__(self, *error):
        return None


def test_a_capture_warms_up_first_on_its_own_stream(monkeypatch):
    cuda = FakeCuda(monkeypatch)
    replay = CudaGraphs(torch.device("cuda", 0)).capture(cuda.run)
    assert cuda.calls == ["wait", "run", "synchronize", "begin", "run", "end", "wait"]
    replay()
    assert cuda.calls[-1] == "replay"


@pytest.mark.parametrize(
    ("fail", "error", "message"),
    [
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), torch.cuda.OutOfMemoryError, "while a CUDA graph"),
        (
            RuntimeError("operation not permitted when stream is capturing\nx"),
            BackendError,
            "graphs=False runs without",
        ),
        (subprocess.CalledProcessError(1, "gcc"), BackendError, "captured .*gcc"),
        (ShapeError("x: expected shape"), ShapeError, "expected shape"),
    ],
)
def test_a_capture_that_fails(fail, error, message, monkeypatch):
    cuda = FakeCuda(monkeypatch, fail)
    graphs = CudaGraphs(torch.device("cuda", 0))
    with pytest.raises(error, match=message):
        graphs.capture(cuda.run)
    assert cuda.calls[-3:] == ["end", "synchronize", "empty cache"]
    cuda.fail = None
    graphs.capture(cuda.run)()
    again = isinstance(fail, (RuntimeError, subprocess.CalledProcessError)) and error is BackendError
    tries = 2 if again else 1
    assert cuda.calls.count("begin") == tries + 1, "what another library may have broken is tried once more"
    pools = len(set(cuda.pools))
    assert cuda.calls[-1] == "replay" and pools == tries + 1, "what failed may still be in the first pool"


@pytest.mark.parametrize(
    ("fail", "captures"), [(None, 1), (torch.cuda.OutOfMemoryError("full"), 1), (RuntimeError("broken"), 2)]
)
def test_garbage_is_not_collected_while_a_graph_is_captured(fail, captures, monkeypatch):
    cuda, enabled = FakeCuda(monkeypatch, fail), []

    def run():
        enabled.append(gc.isenabled())
        cuda.run()

    for before in (True, False):
        with collecting(before), suppress(BackendError, torch.cuda.OutOfMemoryError):
            cuda.calls.clear()
            CudaGraphs(torch.device("cuda", 0)).capture(run)
        assert enabled == [before] + captures * [False], "only there: what is compiled before takes seconds"
        enabled.clear()


@contextmanager
def collecting(wanted):
    """That the garbage collector is on, or off; and that it is so still in the end."""
    (gc.enable if wanted else gc.disable)()
    try:
        yield
        assert gc.isenabled() == wanted
    finally:
        gc.enable()


def test_a_capture_begins_when_another_backends_has_ended(monkeypatch):
    cuda, launched = FakeCuda(monkeypatch), threading.Event()

    def run():
        cuda.run()
        launched.set()

    with capturing():
        thread = threading.Thread(target=CudaGraphs(torch.device("cuda", 0)).capture, args=(run,))
        thread.start()
        assert launched.wait(20)
        thread.join(0.2)
        assert cuda.calls == ["wait", "run", "synchronize"] and thread.is_alive()
    thread.join(20)
    assert cuda.calls[3:] == ["begin", "run", "end", "wait"]


def test_a_capture_that_another_library_broke_succeeds_the_second_time(monkeypatch):
    cuda = FakeCuda(monkeypatch, RuntimeError("operation failed due to a previous error during capture"))
    runs = iter((None, cuda.fail, None))

    def run():
        if (error := next(runs)) is not None:
            raise error

    CudaGraphs(torch.device("cuda", 0)).capture(run)()
    assert cuda.calls[-1] == "replay" and cuda.calls.count("begin") == 2


class Waiting(FakeCuda):
    """Whose device may not be waited for while a stream is captured, as CUDA's may not."""

    def __init__(self, monkeypatch):
        super().__init__(monkeypatch)
        self.capturing = threading.Event()
        monkeypatch.setattr(torch.cuda, "empty_cache", self.empty_cache)

        outer, record = self, torch.cuda.graph

        class Recording(record):
            def __enter__(self):
                assert not outer.capturing.is_set(), "two at a time"
                outer.capturing.set()
                time.sleep(0.02)

            def __exit__(self, *error):
                outer.capturing.clear()

        monkeypatch.setattr(torch.cuda, "graph", Recording)

    def empty_cache(self):
        assert not self.capturing.is_set()

    def run(self):
        pass


def test_captures_of_several_recognisers_take_turns(monkeypatch):
    cuda, failures = Waiting(monkeypatch), []

    def work():
        try:
            for _ in range(3):
                CudaGraphs(torch.device("cuda", 0)).capture(cuda.run)
                release_memory()
        except Exception as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures


def test_buffers_go_with_the_runner_that_had_them(random_model):
    class Forgetful:
        """Keeps no recording, as CUDA's graphs keep nothing of Python."""

        def capture(self, run):
            run()
            return lambda: None

    model = random_model(seed=8)
    backend, driver = backend_of(model, batch_size=8, passes=(26, 26), layer=Forgetful())
    backend.read(driver, images(3, model))
    buffers = weakref.ref(backend._runner._static)
    gc.disable()
    try:
        with pytest.warns(RuntimeWarning):
            backend._shrink(8)
        assert buffers() is None, "their memory is needed for the smaller ones, before the collector comes"
    finally:
        gc.enable()


def test_kernels_are_compiled_while_others_capture_and_read(monkeypatch):
    """Compiling takes seconds a kernel: the lock that captures share is not held for it."""
    cuda, compiling, go_on = FakeCuda(monkeypatch), threading.Event(), threading.Event()

    def slow():
        if not compiling.is_set():
            compiling.set()
            assert go_on.wait(20), "another recogniser had to wait for the compiler"

    thread = threading.Thread(target=CudaGraphs(torch.device("cuda", 0)).capture, args=(slow,))
    thread.start()
    assert compiling.wait(20)
    CudaGraphs(torch.device("cuda", 0)).capture(cuda.run)
    release_memory()
    go_on.set()
    thread.join()
    assert cuda.calls.count("begin") == 2


def test_a_batch_size_that_is_compiled_is_read_while_another_compiles(random_model):
    model, layer = random_model(seed=8, steps=9), Replayed()
    backend, driver = backend_of(model, layer=layer)
    compiling, go_on, compiled = threading.Event(), threading.Event(), []

    def compile(bucket):
        compiled.append(bucket)
        if bucket == 8:
            compiling.set()
            assert go_on.wait(60), "who reads one image had to wait for the compiler"

    backend.prepared = Prepared(compile)
    pixels = images(6, model)
    want = backend.read(driver, pixels[:1])
    thread = threading.Thread(target=backend.read, args=(driver, pixels))
    thread.start()
    assert compiling.wait(60)
    same(backend.read(driver, pixels[:1]), want)
    go_on.set()
    thread.join()
    assert compiled == [1, 8]


def test_words_are_resumed_in_a_batch_size_that_is_compiled(random_model):
    model, compiled = random_model(seed=3, eos_bias=3.5), []
    want, _ = backend_of(model, passes=(9, 6), layer=Replayed())
    backend, driver = backend_of(model, passes=(9, 6), layer=Replayed())
    backend.prepared = Prepared(compiled.append)
    backend._runner = backend._make_runner(backend.program, 64)
    pixels = images(13, model, seed=1)
    same(backend.read(driver, pixels), want.read(driver, pixels))
    assert compiled == [16] == backend._runner.resuming.captured


def test_words_are_resumed_after_memory_ran_out_in_the_middle_of_a_read(random_model):
    """What is compiled then is for more images than there is room for."""
    model, compiled = random_model(seed=3, eos_bias=3.5), []
    backend, driver = backend_of(model, passes=(9, 6), layer=Replayed(memory_for=8))
    backend.prepared = Prepared(compiled.append)
    backend._runner = backend._make_runner(backend.program, 64)
    pixels = images(13, model, seed=1)
    with pytest.warns(RuntimeWarning, match="reading 8 at a time"):
        same(backend.read(driver, pixels), backend_of(model, passes=(9, 6))[0].read(driver, pixels))
    assert compiled == [16] and max(backend._runner.resuming.captured) <= 8


def test_warm_up_captures_every_graph_of_the_batch_sizes(random_model):
    model, layer = random_model(seed=4, steps=9, eos_bias=2.5), Replayed()
    backend, driver = backend_of(model, layer=layer)
    backend.warm_up(driver, [6, 1])
    for graphs in (backend._runner.graphs, backend._runner.resuming, backend._runner.rereading):
        assert graphs.captured == [1, 8]
    pixels = images(7, model)
    same(backend.read(driver, pixels), backend_of(model)[0].read(driver, pixels))
    assert backend._runner.graphs.captured == [1, 8]


def test_warm_up_where_memory_does_not_suffice(random_model):
    model = random_model(seed=8)
    backend, driver = backend_of(model, layer=Replayed(memory_for=2))
    with pytest.warns(RuntimeWarning, match="out of memory"):
        backend.warm_up(driver, [8])
    assert backend.largest == 2
    backend.read(driver, images(3, model))


def test_launching_once_launches_what_the_graphs_hold(random_model, monkeypatch):
    backend, driver = backend_of(random_model(seed=8), layer=Replayed())
    called, inner = [], program.decode_pass

    def noted(*args, **options):
        called.append((options["mode"], len(args[2])))
        return inner(*args, **options)

    monkeypatch.setattr(program, "decode_pass", noted)
    launch_once(backend.program, 2)
    launched = set(called)
    called.clear()
    backend.warm_up(driver, [2])
    assert set(called) == launched == {("start", 2), ("causal", 2), ("cloze", 2)}


def test_launching_once_without_memory_leaves_it_to_who_captures(random_model, monkeypatch):
    backend, _ = backend_of(random_model(seed=8))

    def scarce(program, rows):
        raise torch.cuda.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(runner, "Static", scarce)
    launch_once(backend.program, 2)
