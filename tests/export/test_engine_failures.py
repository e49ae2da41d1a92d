"""What can go wrong in a build of engines: one line that says what, no half-written file, no measurement lost."""

from __future__ import annotations

import os
import shutil
import signal
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from fake_builder import FakeTensorRT

from clip4str.core.errors import BackendError, BundleError, UsageError
from clip4str.export.engines import EngineOptions, build_engines, choose_target, engine_key, find_library
from clip4str.export.engines import build as building
from clip4str.export.engines import library as libraries
from clip4str.export.engines.listening import Listener
from clip4str.export.engines.timing_cache import TimingCache
from clip4str.runtime.bundle import STAGES, Bundle

OPTIONS = EngineOptions("tensorrt", max_batch=16)
RTX = EngineOptions("tensorrt-rtx", compute_capabilities=("8.6",))
ORIN = SimpleNamespace(name="Orin (nvgpu)", compute_capability="8.7")


@pytest.fixture
def bundle(half_bundle, tmp_path) -> Bundle:
    return Bundle.open(shutil.copytree(half_bundle, tmp_path / "bundle"))


@pytest.fixture
def board(monkeypatch, tmp_path):
    """board(needs=...) -> a board with that TensorRT"""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(libraries.cuda, "why_unusable", lambda: None)
    closed = []
    layer = SimpleNamespace(device=ORIN, close=lambda: closed.append(True))
    monkeypatch.setattr(libraries.cuda, "open_cuda", lambda: layer)

    def make(**how) -> FakeTensorRT:
        fake = FakeTensorRT(**how)
        monkeypatch.setattr(building, "find_library", lambda target: fake)
        return fake

    make.closed = closed
    return make


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def line_of(error) -> str:
    text = str(error.value)
    assert "\n" not in text and len(text) < 900
    return text


def cache_file(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "clip4str" / "timing-tensorrt-10.3.0-Orin-nvgpu.cache"


# one line, all is said


def test_no_tensorrt(monkeypatch):
    for module in ("tensorrt", "tensorrt_rtx"):
        monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(BackendError) as error:
        find_library("tensorrt")
    assert "JetPack" in line_of(error) and "pip install tensorrt" in line_of(error)
    with pytest.raises(BackendError, match="pip install tensorrt-rtx"):
        find_library("tensorrt-rtx")


def test_no_gpu_and_an_old_tensorrt(bundle, board, monkeypatch):
    fake = board()
    monkeypatch.setattr(libraries.cuda, "why_unusable", lambda: "no CUDA driver here")
    before = names(bundle.folder)
    with pytest.raises(BackendError, match=r"on the GPU that will run them.*no CUDA driver here"):
        build_engines(bundle.folder, bundle.manifest, OPTIONS)
    fake.__version__ = "8.6.1"
    with pytest.raises(BackendError, match=r"TensorRT 8\.6\.1 is too old; 10\.3 or newer"):
        engine_key(bundle.manifest, OPTIONS)
    assert names(bundle.folder) == before


def test_tensorrt_that_cannot_start(bundle, board):
    board().builderless = True
    with pytest.raises(BackendError) as error:
        build_engines(bundle.folder, bundle.manifest, OPTIONS)
    assert line_of(error) == "image stage: TensorRT 10.3.0 built no engine: CUDA initialization failure with error: 35"


def test_too_little_workspace(bundle, board):
    fake, before = board(needs=64 << 20), names(bundle.folder)
    with pytest.raises(BackendError) as error:
        build_engines(bundle.folder, bundle.manifest, replace(OPTIONS, workspace=16 << 20))
    line = line_of(error)
    assert "image stage" in line and "Could not find any implementation" in line
    assert line.endswith("it may use 16 MiB of scratch memory, raise --workspace")
    assert names(bundle.folder) == before and fake.builds[0].workspace == 16 << 20
    build_engines(bundle.folder, bundle.manifest, replace(OPTIONS, workspace=64 << 20))


@pytest.mark.parametrize("words, hint", [("out of memory", "lower --max-batch"), ("internal assertion", None)])
def test_no_engine_for_another_reason(bundle, board, words, hint):
    board(fail_at=2, words=words)
    with pytest.raises(BackendError) as error:
        build_engines(bundle.folder, bundle.manifest, OPTIONS)
    assert f"text stage: TensorRT 10.3.0 built no engine: {words}" in line_of(error)
    assert (hint in line_of(error)) if hint else line_of(error).endswith(words)


def test_a_level_that_this_tensorrt_lacks(bundle, board):
    board()
    with pytest.raises(
        BackendError, match=r"TensorRT 10\.3\.0 has no --hardware-compatibility same_compute_capability"
    ):
        build_engines(
            bundle.folder, bundle.manifest, replace(OPTIONS, hardware_compatibility="same_compute_capability")
        )


def test_flags_reach_the_config(bundle, board):
    fake = board()
    options = replace(OPTIONS, hardware_compatibility="ampere_plus", version_compatible=True, opt_batch=64, min_batch=2)
    engines = build_engines(bundle.folder, bundle.manifest, options)
    assert len(fake.builds) == 4 and board.closed
    for config in fake.builds:
        assert config.hardware_compatibility_level is fake.HardwareCompatibilityLevel.AMPERE_PLUS
        assert config.flags == [fake.BuilderFlag.VERSION_COMPATIBLE] and config.workspace is None
        assert config.profiling_verbosity is fake.ProfilingVerbosity.DETAILED
    steps = (26,)
    shapes = fake.builds[1].profile.shapes
    assert shapes["attend"] == ((2, *steps * 2), (16, *steps * 2), (16, *steps * 2))
    assert engines["gpu"] == "Orin (nvgpu)" and engines["compute_capabilities"] == ["8.7"]
    assert engines["version"] == "10.3.0" and engines["hardware_compatibility"] == "ampere_plus"
    assert engines["version_compatible"] is True and engines["profile"] == {"min": 2, "opt": 16, "max": 16}
    assert (bundle.folder / "cross.plan").read_text().startswith("plan 3")


# by the real compiler


def test_a_file_that_is_no_graph(bundle):
    pytest.importorskip("tensorrt_rtx")
    path = bundle.folder / "text.onnx"
    path.write_bytes(path.read_bytes()[:5000])
    with pytest.raises(BundleError) as error:
        build_engines(bundle.folder, bundle.manifest, RTX)
    assert "text.onnx" in line_of(error) and "cannot parse it" in line_of(error)
    assert "text.plan" not in names(bundle.folder) and not list(bundle.folder.glob(".*"))


def test_a_node_that_the_parser_refuses(bundle):
    pytest.importorskip("tensorrt_rtx")
    import onnx

    model = onnx.load(bundle.folder / "image.onnx")
    node = next(n for n in model.graph.node if n.op_type == "Softmax")
    node.op_type = "Multinomial"
    del node.attribute[:]
    (bundle.folder / "image.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(BundleError) as error:
        build_engines(bundle.folder, bundle.manifest, RTX)
    assert "image.onnx" in line_of(error) and "Multinomial" in line_of(error)


def test_a_file_of_another_stage_or_size(bundle):
    pytest.importorskip("tensorrt_rtx")
    shutil.copy(bundle.folder / "text.onnx", bundle.folder / "image.onnx")
    with pytest.raises(BundleError, match=r"image\.onnx: has inputs bpe .*not those of the image stage"):
        build_engines(bundle.folder, bundle.manifest, RTX)
    config = {**bundle.manifest.config, "context": 12}
    shutil.copy(bundle.folder / "text.onnx", bundle.folder / "image.onnx")
    other = replace(bundle.manifest, config=config)
    with pytest.raises(BundleError, match=r"bpe has shape \(-1, 16\), expected \(-1, 12\)"):
        listener = Listener()
        rtx = find_library("tensorrt-rtx")
        building._Stage(rtx, building.logger_of(rtx), listener, RTX).build(
            bundle.folder / "text.onnx", "text", other, None, lambda _: None
        )


def test_a_gpu_that_the_library_does_not_know(bundle):
    pytest.importorskip("tensorrt_rtx")
    with pytest.raises(BackendError, match=r"does not build for 5\.0; it knows .*8\.6"):
        build_engines(bundle.folder, bundle.manifest, replace(RTX, compute_capabilities=("5.0",)))


def test_interrupted_by_hand(bundle):
    """A real signal while a real build runs: it stops, and the folder is as it was."""
    pytest.importorskip("tensorrt_rtx")
    before, heard = names(bundle.folder), []

    def interrupt(line: str) -> None:
        if threading.current_thread() is not threading.main_thread() and not heard:
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)  # the main thread gets it, and tells the build
            heard.append("interrupted")
        elif heard:
            heard.append(line)

    with pytest.raises(KeyboardInterrupt):
        build_engines(bundle.folder, bundle.manifest, replace(RTX, verbose=True), detail=interrupt)
    assert any("BuildCanceled" in line for line in heard)
    assert names(bundle.folder) == before
    build_engines(bundle.folder, bundle.manifest, RTX)  # and the next one is none the worse


def test_a_listener_that_fails_stops_the_build(bundle):
    """As when the terminal that --verbose prints to goes away: no exception may cross TensorRT's C++."""
    pytest.importorskip("tensorrt_rtx")
    before = names(bundle.folder)

    def gone(line: str) -> None:
        raise BrokenPipeError("the terminal is gone")

    with pytest.raises(BrokenPipeError):
        build_engines(bundle.folder, bundle.manifest, replace(RTX, verbose=True), detail=gone)
    assert names(bundle.folder) == before


def test_a_full_disk(bundle, monkeypatch):
    pytest.importorskip("tensorrt_rtx")
    before, opened = names(bundle.folder), Path.open

    def full(path, mode="r", *rest, **more):
        file = opened(path, mode, *rest, **more)
        if "w" in mode:
            file.close()
            raise OSError(28, "No space left on device")
        return file

    monkeypatch.setattr(Path, "open", full)
    with pytest.raises(OSError, match="No space left"):
        build_engines(bundle.folder, bundle.manifest, RTX)
    monkeypatch.undo()
    assert names(bundle.folder) == before


# the timing cache


def test_timings_are_kept_and_given_again(bundle, board, tmp_path):
    fake = board()
    build_engines(bundle.folder, bundle.manifest, OPTIONS)
    everything = "".join(f"{stage}.{step};" for stage in range(4) for step in range(4))
    assert cache_file(tmp_path).read_text() == f"timings:{everything}"
    assert [config.given for config in fake.builds] == [everything[: 16 * n] for n in range(4)]
    again = board()
    said: list[str] = []
    build_engines(bundle.folder, bundle.manifest, OPTIONS, say=said.append)
    assert again.builds[0].given == everything and not any("timing cache" in line for line in said)
    assert names(cache_file(tmp_path).parent) == [cache_file(tmp_path).name]


def test_timings_of_a_build_that_was_stopped_or_failed_are_kept(bundle, board, tmp_path):
    before = names(bundle.folder)

    def interrupt(number: int, step: int) -> None:
        if (number, step) == (0, 1):
            os.kill(os.getpid(), signal.SIGINT)
            time.sleep(0.5)  # the main thread gets it, and tells the build

    board(on_step=interrupt)
    with pytest.raises(KeyboardInterrupt):
        build_engines(bundle.folder, bundle.manifest, OPTIONS)
    assert cache_file(tmp_path).read_text() == "timings:0.0;0.1;" and names(bundle.folder) == before
    board(fail_at=0, words="no")
    with pytest.raises(BackendError):
        build_engines(bundle.folder, bundle.manifest, OPTIONS)
    assert cache_file(tmp_path).read_text() == "timings:0.0;0.1;0.0;0.1;0.2;0.3;"


@pytest.mark.parametrize("content", [b"garbage", b"\0" * 100], ids=["text", "zeros"])
def test_a_damaged_cache_is_said_and_started_anew(bundle, board, tmp_path, content):
    file, said = tmp_path / "mine.cache", []
    file.write_bytes(content)
    fake = board()
    build_engines(bundle.folder, bundle.manifest, replace(OPTIONS, timing_cache=file), say=said.append)
    assert [line for line in said if "mine.cache" in line] == [
        f"timing cache {file}: damaged, or of another TensorRT; started anew"
    ]
    assert fake.builds[0].given == "" and file.read_text().startswith("timings:0.0;")


def test_a_cache_that_cannot_be_written_stops_nothing(bundle, board, tmp_path):
    (tmp_path / "file").write_text("in the way")
    said: list[str] = []
    board()
    options = replace(OPTIONS, timing_cache=tmp_path / "file" / "timing.cache")
    assert build_engines(bundle.folder, bundle.manifest, options, say=said.append)["files"]
    assert any("cannot be" in line and "timing.cache" in line for line in said)


def test_a_real_library_and_a_damaged_cache(tmp_path):
    rtx = pytest.importorskip("tensorrt_rtx")
    listener = Listener()
    logger = building.logger_of(rtx)
    logger.listener = listener
    config = rtx.Builder(logger).create_builder_config()
    file, said = tmp_path / "timing.cache", []
    file.write_bytes(b"garbage" * 50)
    cache = TimingCache(file, said.append)
    cache.give(config, listener)
    cache.keep(config)
    assert len(said) == 1 and "damaged" in said[0]
    assert file.read_bytes() != b"garbage" * 50 and names(tmp_path) == ["timing.cache"]
    logger.listener = None


# which target


def test_auto(monkeypatch):
    def here(modules: set[str], gpu: bool) -> None:
        spec = SimpleNamespace(util=SimpleNamespace(find_spec=lambda name: name if name in modules else None))
        monkeypatch.setattr(libraries, "importlib", spec)
        monkeypatch.setattr(libraries.cuda, "why_unusable", lambda: None if gpu else "no GPU")

    both = {"tensorrt", "tensorrt_rtx"}
    for modules, gpu, precision, finishing, expected in (
        (both, True, "fp16", False, "tensorrt"), (both, True, "int8", False, "tensorrt"),
        ({"tensorrt_rtx"}, True, "fp16", False, "tensorrt-rtx"), (both, False, "fp16", False, "onnx"),
        (set(), True, "fp16", False, "onnx"), (both, True, "fp32", False, "onnx"), (both, True, None, False, "onnx"),
        (both, True, None, True, "tensorrt"), (both, False, None, True, "onnx"),
    ):  # fmt: skip
        here(modules, gpu)
        assert choose_target("auto", precision, finishing) == expected
        assert choose_target("tensorrt-rtx", precision, finishing) == "tensorrt-rtx"
        assert choose_target("onnx", precision, finishing) == "onnx"


def test_every_bad_option_has_its_line(bundle, tmp_path):
    for change, message in (
        ({"target": "onnx"}, "unknown target 'onnx'"), ({"min_batch": 0}, "--min-batch is 0"),
        ({"opt_batch": 0}, "--opt-batch is 0"), ({"max_batch": 0}, "--max-batch is 0, expected 1 to"),
        ({"min_batch": 20}, "--max-batch is 16, expected 20 to"), ({"max_batch": 5000}, "--max-batch is 5000"),
        ({"workspace": 0}, "--workspace is 0"), ({"workspace": -5}, "--workspace is -5"),
        ({"timing_cache": tmp_path}, "is a folder; name a file"),
        ({"hardware_compatibility": "hopper"}, "--hardware-compatibility is 'hopper'"),
        ({"compute_capabilities": ("8.6",)}, "--compute-capability is tensorrt-rtx's"),
        ({"target": "tensorrt-rtx", "version_compatible": True}, "--version-compatible is TensorRT's"),
        ({"target": "tensorrt-rtx", "hardware_compatibility": "ampere_plus"}, "--hardware-compatibility is TensorRT's"),
        ({"target": "tensorrt-rtx", "timing_cache": tmp_path / "x"}, "--timing-cache is TensorRT's"),
        ({"target": "tensorrt-rtx", "compute_capabilities": ("sm86",)}, "has 'sm86', expected numbers"),
        ({"target": "tensorrt-rtx", "compute_capabilities": ("8.6", "8.6")}, "one of them twice"),
    ):  # fmt: skip
        for call in (EngineOptions.check, lambda o: build_engines(bundle.folder, bundle.manifest, o)):
            with pytest.raises(UsageError) as error:
                call(replace(OPTIONS, **change))
            assert message in line_of(error)
    assert set(STAGES) & {p.stem for p in bundle.folder.glob("*.plan")} == set()
